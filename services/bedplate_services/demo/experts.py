"""What an expert team does: read a training set, train, register, evaluate on what nothing has seen."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from bedplate import Client, TrainingSetData
from bedplate.wire.registry import ExpertVersion
from bedplate_modeling.checkpoints import save_checkpoint
from bedplate_modeling.config import ExpertConfig
from bedplate_modeling.events import History
from bedplate_modeling.expert import ExpertModel
from bedplate_modeling.expert_rows import ExpertRows
from bedplate_modeling.metrics import auc, normalized_entropy
from bedplate_modeling.runtime import ExpertRuntime

Features = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Variant:
    """One column of the table: which of the foundation's vectors the expert reads, and of which version."""

    key: str
    title: str
    inputs: str
    version: str | None
    all_past: bool = False
    """Whether it learns from the surface's whole past instead of the rows that have TAE."""

    def config(self, surface: str, dim: int, **changes: Any) -> ExpertConfig:
        """The same network for every variant, but for the foundation's inputs; without them it is wider,
        until serving costs the same.
        """
        if self.version is None:
            return ExpertConfig.one_stage(surface, dim, **changes)
        if self.inputs == "vectors":
            return ExpertConfig.on_vectors(surface, self.version, dim, **changes)
        return ExpertConfig.on_tae(surface, self.version, dim, **changes)


def variants(first: str, second: str) -> list[Variant]:
    """(b) to (e) of the table; (a), the base rate, needs no expert."""
    return [
        Variant("b", "one-stage, no foundation", "none", None),
        Variant("b+", "same, all the surface's past", "none", None, all_past=True),
        Variant("c", f"user, item vectors of {second}", "vectors", second),
        Variant("d", f"TAE of {first}", "tae", first),
        Variant("e", f"TAE of {second}", "tae", second),
    ]


def rows_for(base: ExpertRows, data: TrainingSetData, variant: Variant, reader: Client) -> ExpertRows:
    """``base`` with what the variant reads beside it; TAE are the logged bytes, widened to float32."""
    if variant.version is None:
        return base
    if variant.inputs == "tae":
        return replace(base, tae_ND=data.tae(variant.version).astype(np.float32))
    users = data.requests["user"].to_pylist()
    user_vectors, user_found = _vectors(reader, f"{variant.version}/user", users)
    item_vectors, item_found = _vectors(reader, f"{variant.version}/item", list(base.items))
    return replace(
        base,
        user_vectors_ND=user_vectors[base.request_index_N],
        user_found_N=user_found[base.request_index_N],
        item_vectors_ND=item_vectors,
        item_found_N=item_found,
    )


def base_rows(data: TrainingSetData, features: Features, surface: str) -> ExpertRows:
    """The columns of a training set that every variant shares."""
    served_ms = -(-data.requests["served_at"].cast(pa.int64()).to_numpy() // 1000)
    histories = [
        History(items, actions, (surface,) * len(items), at - np.asarray(ages, dtype=np.int64))
        for at, items, actions, ages in zip(
            served_ms.tolist(),
            data.requests["history_item"].to_pylist(),
            data.requests["history_action"].to_pylist(),
            data.requests["history_age_ms"].to_pylist(),
            strict=True,
        )
    ]
    return ExpertRows(
        items=data.rows["item"].to_pylist(),
        request_index_N=data.rows["request_index"].to_numpy().astype(np.int64),
        histories=histories,
        request_at_ms_R=served_ms,
        item_features=features,
        label_N=data.rows["label"].to_numpy().astype(np.float32),
    )


def _vectors(
    client: Client, reference: str, keys: Sequence[str]
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    distinct, places = np.unique(np.asarray(keys), return_inverse=True)
    answers = [client.spaces.lookup(reference, part.tolist()) for part in _chunks(distinct, 5000)]
    vectors = np.concatenate([answer.vectors for answer in answers]).astype(np.float32)
    found = np.concatenate([answer.found for answer in answers])
    return vectors[places], found[places]


def _chunks(values: NDArray[Any], size: int) -> Iterator[NDArray[Any]]:
    for first in range(0, len(values), size):
        yield values[first : first + size]


def publish_expert(
    client: Client, name: str, model: ExpertModel, variant: Variant, training_set: str
) -> ExpertVersion:
    """Register the model as the expert's next version, pinned to its foundation version."""
    with tempfile.TemporaryDirectory(prefix="bedplate-expert-") as folder:
        save_checkpoint(Path(folder), model)
        return client.experts.publish(
            name,
            Path(folder),
            pinned_version=variant.version,
            pinned_space=None if variant.version is None else "tae",
            training_set=training_set,
            description=variant.title,
        )


def score(model: ExpertModel, rows: ExpertRows) -> NDArray[np.float32]:
    """float32 [N]: the expert's probabilities, off line."""
    return ExpertRuntime(model).score(rows)


@dataclass(frozen=True)
class Score:
    """NE and AUC of one model on one surface."""

    ne: float
    auc: float

    @classmethod
    def of(cls, label: NDArray[np.float32], probability: NDArray[np.floating]) -> Score:
        return cls(normalized_entropy(label, probability), auc(label, probability))
