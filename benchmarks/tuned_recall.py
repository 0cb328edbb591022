"""``python -m benchmarks.tuned_recall``: whether fresh queries find what tuning promised, and at what effort.

Legend: Q queries, R rows, D dimension.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from bedplate.wire.store import IndexKind, IndexSpecification
from bedplate_store.indexes import IndexDocument, build_index, flat_rows
from bedplate_store.indexes.efforts import Effort, choose, read_points
from bedplate_store.indexes.searching import EF_MAX, FaissIndex, open_faiss
from bedplate_store.objects import LocalObjectStore
from bedplate_store.segments import Segment, open_segment, write_segment
from benchmarks.choices import among
from benchmarks.vectors import clustered, gapped_keys

OUTPUT = Path("benchmarks") / "results" / "tuned-recall.local.json"
KINDS: tuple[IndexKind, ...] = ("ivf", "hnsw")
DEPTHS = (10, 100)
TARGETS = (0.9, 0.95, 0.99)
_METRIC = "inner_product"
_RANK = 24
_NOISE = 0.25
_FRESH = 2_000

Vectors = NDArray[np.float32]


def _uniform(rows: int, queries: int, dim: int) -> tuple[Vectors, Vectors]:
    vectors = np.random.default_rng(0).random((rows + queries, dim), np.float32) - np.float32(0.5)
    return vectors[:rows], vectors[rows:]


def _low_rank(rows: int, queries: int, dim: int) -> tuple[Vectors, Vectors]:
    """What learned embeddings look like: most variance in few directions, and some in all."""
    random = np.random.default_rng(0)
    scale = (1 / np.sqrt(1 + np.arange(_RANK))).astype(np.float32)
    basis = random.standard_normal((_RANK, dim), np.float32) / np.float32(np.sqrt(dim))
    vectors = (random.standard_normal((rows + queries, _RANK), np.float32) * scale) @ basis
    vectors += np.float32(_NOISE / np.sqrt(dim)) * random.standard_normal(vectors.shape, np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors[:rows], vectors[rows:]


SPACES: dict[str, Callable[[int, int, int], tuple[Vectors, Vectors]]] = {
    "clustered": clustered,
    "uniform": _uniform,
    "low rank": _low_rank,
}


@dataclass(frozen=True)
class Outcome:
    """One target of one space over all tunings.

    Attributes:
        recalls: of each tuning that promised the target, what fresh queries found. efs, refine_factors: what
            every tuning chose.
        needed: the least ``ef`` that reaches the target on the fresh queries themselves, rescoring as the
            median tuning does; None: none does.
        seconds: the median time of building and tuning.
    """

    space: str
    dim: int
    kind: IndexKind
    depth: int
    target: float
    recalls: list[float]
    efs: list[int]
    refine_factors: list[float]
    needed: int | None
    seconds: float

    @property
    def reached(self) -> int:
        return sum(recall >= self.target for recall in self.recalls)


class Fresh:
    """Queries that nothing has seen, and what a scan finds for them."""

    def __init__(self, segment: Segment, queries_QD: Vectors) -> None:
        self.queries = queries_QD
        scores, _ = flat_rows(segment.scan, _METRIC, segment.info.storage).search(queries_QD, max(DEPTHS))
        self._thresholds = {depth: scores[:, depth - 1] - 1e-6 for depth in DEPTHS}

    def recall(self, index: FaissIndex, depth: int, effort: Effort) -> float:
        """The share of the exact nearest that the index finds."""
        found, _ = index.search_with(self.queries, depth, effort)
        hits = (found >= self._thresholds[depth][:, None]).sum(axis=1)
        return float(np.minimum(hits, depth).mean()) / depth


def main(
    names: Annotated[
        list[str] | None,
        typer.Argument(help=f"Any of {', '.join(SPACES)}. Default: all.", callback=among(SPACES, "space")),
    ] = None,
    rows: Annotated[int, typer.Option(min=2_000, help="Rows of each space.")] = 10_000,
    dims: Annotated[str, typer.Option(help="Dimensions, by commas.")] = "128,256",
    seeds: Annotated[int, typer.Option(min=1, help="Times each index is built and tuned.")] = 5,
    output: Annotated[Path, typer.Option(help="Where the figures are written as JSON.")] = OUTPUT,
) -> None:
    """Build and tune inverted lists and graphs over and over, and ask fresh queries of the same distribution.

    Example: python -m benchmarks.tuned_recall clustered --dims 128
    """
    messages = Console(stderr=True)
    outcomes: list[Outcome] = []
    for name in names or []:
        for dim in map(int, dims.split(",")):
            vectors, queries = SPACES[name](rows, _FRESH, dim)
            with tempfile.TemporaryDirectory(prefix="bedplate-tuned-recall-") as folder:
                segment = _segment(Path(folder), vectors)
                fresh = Fresh(segment, queries)
                for kind in KINDS:
                    messages.print(f"{name}, {dim}, {kind}: building {seeds} times ...", highlight=False)
                    outcomes += _measure(Path(folder), name, segment, fresh, kind, seeds)
    print_table(outcomes, Console() if Console().is_terminal else Console(width=140))
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps([asdict(outcome) for outcome in outcomes], indent=2) + "\n")
    messages.print(f"All figures: {output}", highlight=False)


def _segment(folder: Path, vectors: Vectors) -> Segment:
    objects = LocalObjectStore(folder / "objects")
    keys = gapped_keys(len(vectors))
    info = write_segment(objects, keys=keys, vectors=vectors, dtype="float32", key_type="int64")
    return open_segment(objects, info.digest, folder / "cache")


def _measure(
    folder: Path, space: str, segment: Segment, fresh: Fresh, kind: IndexKind, seeds: int
) -> list[Outcome]:
    chosen: dict[tuple[int, float], list[tuple[Effort, float, bool]]] = {
        (depth, target): [] for depth in DEPTHS for target in TARGETS
    }
    seconds = []
    specification = IndexSpecification(kind=kind, recall_target=TARGETS[0])
    for seed in range(seeds):
        began = time.perf_counter()
        built = build_index(segment, specification, _METRIC, directory=folder, seed=seed)
        seconds.append(time.perf_counter() - began)
        index = open_faiss(built.paths[0], built.document, segment, _METRIC)
        points, most = read_points(built.document.parameters), _most(built.document)
        for (depth, target), found in chosen.items():
            picked = choose(points, depth, target, ef_max=most)
            effort = Effort(picked.ef, picked.refine_factor)
            found.append((effort, fresh.recall(index, depth, effort), picked.reached))
        built.remove()
    return [
        Outcome(
            space=space,
            dim=segment.info.dim,
            kind=kind,
            depth=depth,
            target=target,
            recalls=[recall for _, recall, promised in found if promised],
            efs=[effort.ef for effort, _, _ in found],
            refine_factors=[effort.refine_factor for effort, _, _ in found],
            needed=_needed(index, fresh, depth, target, [effort for effort, _, _ in found], most),
            seconds=float(np.median(seconds)),
        )
        for (depth, target), found in chosen.items()
    ]


def _most(document: IndexDocument) -> int:
    return int(document.parameters.get("lists", EF_MAX))


def _needed(
    index: FaissIndex, fresh: Fresh, depth: int, target: float, chosen: list[Effort], most: int
) -> int | None:
    refine_factor = sorted(effort.refine_factor for effort in chosen)[len(chosen) // 2]
    # A graph keeps at least the candidates that are rescored.
    low = int(np.ceil(depth * refine_factor)) if index.kind == "hnsw" else 1
    high = min(most, 2 * max(effort.ef for effort in chosen))
    if fresh.recall(index, depth, Effort(high, refine_factor)) < target:
        return None
    while low < high:
        middle = (low + high) // 2
        if fresh.recall(index, depth, Effort(middle, refine_factor)) >= target:
            high = middle
        else:
            low = middle + 1
    return low


def print_table(outcomes: list[Outcome], console: Console) -> None:
    """One line a target: how many tunings of those that promise it keep it, and at what effort."""
    table = Table("vectors", "dim", "kind", "top", "target", title="Recall of fresh queries after tuning")
    for column in ("keep it", "least recall", "median", "median ef", "rescored", "least ef", "build s"):
        table.add_column(column, justify="right")
    for each in outcomes:
        table.add_row(
            each.space,
            str(each.dim),
            each.kind,
            str(each.depth),
            f"{each.target:g}",
            f"{each.reached} of {len(each.recalls)}",
            f"{min(each.recalls):.4f}" if each.recalls else "-",
            f"{np.median(each.recalls):.4f}" if each.recalls else "-",
            f"{np.median(each.efs):g}",
            f"{np.median(each.refine_factors):g}",
            "-" if each.needed is None else str(each.needed),
            f"{each.seconds:.1f}",
        )
    console.print(table)
    reached, tunings = sum(each.reached for each in outcomes), sum(len(each.recalls) for each in outcomes)
    ratios = [float(np.median(each.efs)) / each.needed for each in outcomes if each.needed]
    console.print(
        f"{reached} of {tunings} promises are kept ({reached / tunings:.1%}); "
        f"median ef {np.exp(np.mean(np.log(ratios))):.2f} times the least (geometric mean)",
        highlight=False,
    )


if __name__ == "__main__":
    typer.run(main)
