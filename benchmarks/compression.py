"""What compression costs an expert, in NE: the same expert on float32, float16, int8 and int4 inputs.

Not part of ``make bench``: it trains a foundation and experts on the demo's synthetic world, some minutes.
Every storage sees the same rows, seeds and networks, so the difference to float32 within a seed is what the
storage cost; its spread over the seeds and surfaces says what is chance.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from bedplate.stored_vectors import Storage
from bedplate.wire.registry import Dtype
from bedplate_modeling.config import ExpertConfig, FoundationConfig
from bedplate_modeling.events import Catalogue, Events
from bedplate_modeling.expert_rows import ExpertRows
from bedplate_modeling.expert_training import train_expert
from bedplate_modeling.metrics import normalized_entropy
from bedplate_modeling.requests import TaeRequest, UserRequest
from bedplate_modeling.runtime import ExpertRuntime, FoundationRuntime
from bedplate_modeling.training import train_foundation
from bedplate_services.demo import synthetic
from bedplate_services.demo.evaluation import HISTORY_LENGTH
from bedplate_services.demo.foundations import events_of
from bedplate_services.demo.loop import expert_changes
from bedplate_services.demo.worlds import Cuts, World, cut_pages

DTYPES: tuple[Dtype, ...] = ("float32", "float16", "int8", "int4")
INPUTS = ("tae", "vectors")
_VERSION = "core@1"


@dataclass(frozen=True)
class Result:
    """NE of one expert, and how far its inputs were moved: mean Euclidean distance over the length."""

    inputs: str
    surface: str
    dtype: str
    seed: int
    ne: float
    moved: float


def main() -> None:
    options = _parser().parse_args()
    world = synthetic.make(users=options.users, seed=options.world)
    cuts = world.cuts()
    config = FoundationConfig.small(epochs=8)
    known = events_of(world.window(cuts.start, cuts.foundation_end))
    model = train_foundation(known, Catalogue.from_items(world.items), config)
    source = _Source(world, cuts, FoundationRuntime(model), events_of(world.events), expert_changes(world))
    results = list(_measure(source, options.seeds))
    if options.output is not None:
        options.output.write_text(json.dumps([one.__dict__ for one in results], indent=1))
    _report(results)


@dataclass(frozen=True)
class _Source:
    world: World
    cuts: Cuts
    runtime: FoundationRuntime
    events: Events
    changes: dict[str, Any]

    def rows(self, surface: str, start: int, end: int) -> ExpertRows:
        """The impressions of a window with TAE and vectors in float32, as a request would have had them."""
        window = self.world.window(start, end)
        surfaces = np.asarray(window["surface"].to_pylist())
        items = np.asarray(window["item"].to_pylist(), object)
        here = events_of(self.world.events.filter(pc.equal(self.world.events["surface"], surface)))
        taken: list[NDArray[np.int64]] = []
        asked: list[TaeRequest] = []
        for page in cut_pages(window):
            shown = page.rows[surfaces[page.rows] == surface]
            if len(shown):
                at_ms = int(page.at.timestamp() * 1000)
                history = self.events.history(page.user, at_ms, self.runtime.max_history)
                taken.append(shown)
                asked.append(TaeRequest(page.user, surface, at_ms, items[shown].tolist(), history))
        rows = np.concatenate(taken)
        request = np.repeat(np.arange(len(asked)), [len(each) for each in taken])
        found = np.ones(len(rows), np.bool_)
        return ExpertRows(
            items=items[rows].tolist(),
            request_index_N=request,
            histories=[here.history(each.user, each.at_ms, HISTORY_LENGTH) for each in asked],
            request_at_ms_R=np.asarray([each.at_ms for each in asked], np.int64),
            item_features=self.world.items,
            label_N=window["label"].take(pa.array(rows)).to_numpy().astype(np.float32),
            tae_ND=np.concatenate([each.tae_MD for each in self.runtime.tae(asked)]),
            user_vectors_ND=self._users(asked)[request],
            user_found_N=found,
            item_vectors_ND=self.runtime.embed_items(items[rows].tolist(), self.world.items),
            item_found_N=found,
        )

    def _users(self, asked: list[TaeRequest]) -> NDArray[np.float32]:
        """Users as of the end of the foundation's window, as an embed job leaves them."""
        at_ms = self.cuts.foundation_end // 1000
        return self.runtime.embed_users(
            [
                UserRequest(each.user, at_ms, self.events.history(each.user, at_ms, self.runtime.max_history))
                for each in asked
            ]
        )


def _measure(source: _Source, seeds: int) -> Iterator[Result]:
    cuts = source.cuts
    for surface in synthetic.SURFACES:
        training = source.rows(surface, cuts.foundation_end, cuts.training_end)
        last = source.rows(surface, cuts.training_end, cuts.end)
        for inputs in INPUTS:
            make = ExpertConfig.on_tae if inputs == "tae" else ExpertConfig.on_vectors
            config = make(surface, _VERSION, source.runtime.dim, **source.changes)
            for dtype in DTYPES:
                (seen, _), (scored, moved) = _stored(training, inputs, dtype), _stored(last, inputs, dtype)
                for seed in range(seeds):
                    predicted = ExpertRuntime(train_expert(seen, config, seed)).score(scored)
                    ne = normalized_entropy(last.label_N, predicted)
                    yield Result(inputs, surface, dtype, seed, ne, moved)


def _stored(rows: ExpertRows, inputs: str, dtype: Dtype) -> tuple[ExpertRows, float]:
    """The rows with what the expert reads as a space of ``dtype`` answers it, and how far that moved it."""
    names = ["tae_ND"] if inputs == "tae" else ["user_vectors_ND", "item_vectors_ND"]
    changed, moved = {}, []
    for name in names:
        exact = getattr(rows, name)
        storage = Storage(dtype, exact.shape[1])
        changed[name] = storage.decode(storage.encode(exact)).astype(np.float32)
        lengths = np.maximum(np.linalg.norm(exact, axis=1), 1e-12)
        moved.append(float((np.linalg.norm(changed[name] - exact, axis=1) / lengths).mean()))
    unread = (
        {"tae_ND": None}
        if inputs == "vectors"
        else dict.fromkeys(("user_vectors_ND", "user_found_N", "item_vectors_ND", "item_found_N"))
    )
    return replace(rows, **changed, **unread), float(np.mean(moved))


def _report(results: list[Result]) -> None:
    print("inputs   storage  moved    NE      NE - NE of float32, mean +- deviation (n)")
    for inputs in INPUTS:
        mine = [one for one in results if one.inputs == inputs]
        exact = {(one.surface, one.seed): one.ne for one in mine if one.dtype == "float32"}
        for dtype in DTYPES:
            of_dtype = [one for one in mine if one.dtype == dtype]
            cost = np.array([one.ne - exact[one.surface, one.seed] for one in of_dtype])
            moved, ne = (np.mean([getattr(one, name) for one in of_dtype]) for name in ("moved", "ne"))
            print(
                f"{inputs:8} {dtype:8} {moved:.5f}  {ne:.4f}  "
                f"{cost.mean():+.5f} +- {cost.std():.5f} ({len(cost)})"
            )
        by_surface = [[ne for (name, _), ne in exact.items() if name == each] for each in synthetic.SURFACES]
        print(f"{inputs:8} float32 over seeds: deviation {np.mean([np.std(one) for one in by_surface]):.5f}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.compression", description=__doc__)
    parser.add_argument("--seeds", type=int, default=3, help="experts of each kind; default 3")
    parser.add_argument("--users", type=int, default=800, help="of the synthetic world; default 800")
    parser.add_argument("--world", type=int, default=0, help="seed of the synthetic world")
    parser.add_argument("--output", type=Path, help="write every single result there, as JSON")
    return parser


if __name__ == "__main__":
    main()
