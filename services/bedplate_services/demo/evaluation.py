"""Training every variant of every surface's expert, and measuring it on the evaluation set."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import numpy as np
import pyarrow as pa

from bedplate import Client, TrainingSetData
from bedplate.wire.registry import EvaluationCreate, SpaceRead
from bedplate.wire.serving import RankAnswer
from bedplate.wire.store import TrainingSet, TrainingSetCreate
from bedplate_modeling.expert import ExpertModel
from bedplate_modeling.expert_training import train_expert
from bedplate_modeling.training import TrainingProgress
from bedplate_services.demo.experts import (
    Features,
    Score,
    Variant,
    base_rows,
    publish_expert,
    rows_for,
    score,
)
from bedplate_services.demo.past_rows import past_rows
from bedplate_services.demo.progress import Bar
from bedplate_services.demo.report import SurfaceResult

HISTORY_LENGTH = 16


@dataclass
class SurfaceTeam:
    """One surface's team at work.

    Attributes:
        models: variant key -> its models, one per seed.
        published: variant key -> the expert version in the registry.
    """

    surface: str
    client: Client
    features: Features
    versions: list[str]
    dim: int
    changes: dict[str, Any]
    models: dict[str, list[ExpertModel]] = field(default_factory=dict)
    published: dict[str, int] = field(default_factory=dict)

    def training_set(self, name: str, start: datetime, end: datetime) -> tuple[TrainingSet, TrainingSetData]:
        """Have the impressions of a window joined, wait, and read them."""
        created = self.client.training_sets.create(
            TrainingSetCreate(
                name=name,
                surface=self.surface,
                versions=self.versions,
                window_start=start,
                window_end=end,
                history_length=HISTORY_LENGTH,
            )
        )
        ready = self.client.training_sets.wait(created.id)
        return ready, self.client.training_sets.read(ready.id)

    def train(
        self,
        data: TrainingSetData,
        past: pa.Table,
        variants: list[Variant],
        seeds: int,
        bar: Bar,
    ) -> None:
        """Train ``seeds`` experts of each variant on the same rows; the bar counts the rows."""
        base = base_rows(data, self.features, self.surface)
        for variant in variants:
            bar.stage(f"{self.surface} ({variant.key}), rows")
            if variant.all_past:
                rows = past_rows(past, self.surface, self.features, HISTORY_LENGTH)
            else:
                rows = rows_for(base, data, variant, self.client)
            config = variant.config(self.surface, self.dim, **self.changes)
            self.models[variant.key] = []
            for seed in range(seeds):
                bar.stage(f"{self.surface} ({variant.key}), seed {seed}")
                watch = _share_of(len(rows), bar.advance)
                self.models[variant.key].append(train_expert(rows, config, seed, watch))

    def publish(self, variants: list[Variant], training_set: TrainingSet) -> None:
        """Register the first seed's model of each variant as the next version of the surface's one expert.

        The last of them answers ``/rank``.
        """
        name = f"{self.surface}-ranker"
        self.client.experts.create(name, surface=self.surface, description="made by the demo")
        for variant in variants:
            model = self.models[variant.key][0]
            made = publish_expert(self.client, name, model, variant, training_set.id)
            self.published[variant.key] = made.version
        self.client.experts.serve(name, made.version, expected=None, reason="the first to serve")

    def evaluate(
        self,
        data: TrainingSetData,
        variants: list[Variant],
        window: tuple[datetime, datetime],
        bar: Bar,
        task: str = "label",
    ) -> SurfaceResult:
        """Score the evaluation set by every model; the results are recorded in the registry too."""
        label = data.rows["label"].to_numpy().astype(np.float32)
        rate = float(label.mean(dtype=np.float64))
        result = SurfaceResult(self.surface, len(label), rate)
        result.scores["a"] = [Score.of(label, np.full(len(label), rate))]
        base = base_rows(data, self.features, self.surface)
        found, first = np.zeros(len(label), np.bool_), {}
        for variant in variants:
            rows = rows_for(base, data, variant, self.client)
            if rows.user_found_N is not None and rows.item_found_N is not None:
                found = rows.user_found_N & rows.item_found_N
            bar.stage(f"{self.surface} ({variant.key})")
            predicted = []
            for model in self.models[variant.key]:
                predicted.append(score(model, rows))
                bar.advance(1)
            first[variant.key] = predicted[0]
            result.scores[variant.key] = [Score.of(label, one) for one in predicted]
        result.vectors_found = float(found.mean())
        if found.any() and 0 < label[found].mean() < 1:
            result.where_found = {key: Score.of(label[found], first[key][found]) for key in ("b", "c", "e")}
        for version in self.versions:
            result.foundation[version] = Score.of(label, data.predictions(version))
        self._record(result, {variant.key: variant.version for variant in variants}, window, task)
        return result

    def served_difference(
        self, data: TrainingSetData, variant: Variant, ranked: Mapping[str, RankAnswer]
    ) -> tuple[int, float]:
        """How many answers of ``/rank`` the evaluation set holds, and their largest distance from off line.

        The off-line scores come from the logged TAE, by the very model that was registered.
        """
        off_line = score(
            self.models[variant.key][0],
            rows_for(base_rows(data, self.features, self.surface), data, variant, self.client),
        )
        requests = data.requests["request_id"].to_pylist()
        places = data.rows["request_index"].to_pylist()
        positions = data.rows["position"].to_pylist()
        answered, largest = set(), 0.0
        for place, position, value in zip(places, positions, off_line.tolist(), strict=True):
            answer = ranked.get(requests[place])
            if answer is not None:
                answered.add(place)
                largest = max(largest, abs(answer.scores[position] - value))
        return len(answered), largest

    def _record(
        self,
        result: SurfaceResult,
        read: Mapping[str, str | None],
        window: tuple[datetime, datetime],
        task: str,
    ) -> None:
        """``read``: variant key -> the foundation version whose TAE it reads."""

        def record(
            subject: str, score: Score, variant: str, seed: int | None, reads: list[SpaceRead]
        ) -> None:
            self.client.evaluations.record(
                EvaluationCreate(
                    subject=subject,
                    surface=self.surface,
                    task=task,
                    window_start=window[0],
                    window_end=window[1],
                    rows=result.rows,
                    metrics={"ne": score.ne, "auc": score.auc},
                    variant=variant,
                    seed=seed,
                    reads=reads,
                )
            )

        for version, own in result.foundation.items():
            record(version, own, "foundation", None, [])
        for key, number in self.published.items():
            reads = [SpaceRead(space=f"{read[key]}/tae")]
            record(f"{self.surface}-ranker@{number}", result.scores[key][0], "tae", 0, reads)


def _share_of(rows: int, advance: Callable[[int], None]) -> Callable[[TrainingProgress], None]:
    """Turns a training run's progress over its epochs into the share of ``rows`` that is done."""
    told = 0

    def watch(progress: TrainingProgress) -> None:
        nonlocal told
        done = rows * progress.done // progress.total
        advance(done - told)
        told = done

    return watch
