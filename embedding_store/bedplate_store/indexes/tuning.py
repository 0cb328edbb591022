"""Finding the least effort that reaches a recall, on queries that the index does not hold.

Legend: Q queries, D dimension.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from bedplate.wire.registry import Metric
from bedplate_store.indexes.compressed_rows import flat_rows
from bedplate_store.indexes.documents import BuiltKind
from bedplate_store.indexes.efforts import Effort, EffortPoint
from bedplate_store.indexes.searching import EF_MAX
from bedplate_store.indexes.selection import RowSelection
from bedplate_store.segments import Segment

HELD_BACK = 800
_SHARE_HELD_BACK = 1 / 20
_QUERIES_AT = {10: HELD_BACK, 100: 400, 1000: 100}
"""How many of them are searched at each depth: the deeper, the more each one tells."""
_STANDARD_ERRORS = 2.0
"""So far below the mean lies what is promised: queries to come are others."""
RECALLS = (0.9, 0.95, 0.98, 0.99, 0.995)
"""Besides the target of the index, what a request may ask for without a rebuild."""
_REFINE_FACTORS: dict[str, tuple[float, ...]] = {
    "SQ8": (1, 1.5, 2, 4),
    "SQ4": (1.5, 2, 4, 8),
    "": (1,),
}
_EF_MIN: dict[BuiltKind, int] = {"flat": 1, "ivf": 1, "hnsw": 16}


@dataclass(frozen=True, slots=True)
class HeldBack:
    """Rows taken for queries, and what an exact search finds for them among all others.

    Rows are drawn as queries to come will be, so an index is told by them truly, as long as it does not know
    them: lists are not trained by them, graphs are searched as they were before them, and none is found.

    Attributes:
        rows: [Q], in random order.
        others: the rows that may be found: all but these.
        queries: [Q, D].
        thresholds: for each depth, [q] the score of the exact neighbour number ``depth`` of the first q
            queries, less a tolerance: of rows with equal vectors any will do.
    """

    rows: NDArray[np.int64]
    others: RowSelection
    queries: NDArray[np.float32]
    thresholds: dict[int, NDArray[np.float32]]

    def rows_of(self, span: range) -> NDArray[np.int64]:
        """Which of them lie in a range of the rows, counted from its first."""
        return self.rows[(self.rows >= span.start) & (self.rows < span.stop)] - span.start


def held_back_rows(rows: int, seed: int) -> NDArray[np.int64]:
    """The rows [Q] that are the queries, in random order; they train nothing."""
    count = min(HELD_BACK, int(rows * _SHARE_HELD_BACK))
    return np.random.default_rng(seed).permutation(rows)[:count]


def hold_back(segment: Segment, metric: Metric, seed: int) -> HeldBack:
    """Hold rows back, and find their exact neighbours by one scan of the segment."""
    rows, storage = segment.info.rows, segment.info.storage
    held = held_back_rows(rows, seed)
    queries = storage.decode(segment.vectors[held], "float32")
    depths = [depth for depth in _QUERIES_AT if depth < rows - len(held)]
    scores, found = flat_rows(segment.scan, metric, storage).search(queries, depths[-1] + len(held))
    others = np.ones(rows, np.bool_)
    others[held] = False
    best = np.argsort(~others[found], axis=1, kind="stable")[:, : depths[-1]]
    scores = np.take_along_axis(scores, best, axis=1)
    thresholds = {}
    for depth in depths:
        last = scores[: _QUERIES_AT[depth], depth - 1]
        thresholds[depth] = (last - 1e-5 * np.maximum(1, np.abs(last))).astype(np.float32)
    return HeldBack(held, RowSelection.of(others), queries, thresholds)


@dataclass(frozen=True, slots=True)
class Measured:
    """Recall over the held-back queries: their mean, and what queries to come will find at least."""

    mean: float
    safe: float


class Measurable(Protocol):
    """What can be tuned: an index, or the shards of one as a whole."""

    def search_with(
        self, queries_QD: NDArray[np.float32], k: int, effort: Effort, among: RowSelection | None = None
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Scores [Q, K] and rows [Q, K] found ``among`` rows at exactly this effort."""


def measure_recall(index: Measurable, held_back: HeldBack, depth: int, effort: Effort) -> Measured:
    """Share of the exact ``depth`` nearest rows that the index finds, over the held-back queries."""
    thresholds = held_back.thresholds[depth]
    count = len(thresholds)
    found, _ = index.search_with(held_back.queries[:count], depth, effort, held_back.others)
    hits = (found >= thresholds[:, None]).sum(axis=1)
    recalls = np.minimum(hits, depth) / depth
    mean = float(recalls.mean())
    return Measured(mean, mean - _STANDARD_ERRORS * float(recalls.std()) / math.sqrt(count))


def tune(
    index: Measurable,
    kind: BuiltKind,
    parameters: dict[str, Any],
    target: float,
    held_back: HeldBack,
) -> tuple[dict[str, Any], float, float | None]:
    """The parameters with the measured efforts, the recall at 10 and the recall at 100 (None: too few rows).

    ``index`` is one as readers open it. ``efforts`` has the least effort for the target and for
    each of :data:`RECALLS` at each depth, found by bisection; where one cannot be reached, the best there is.
    """
    ladder = _ladder(_EF_MIN[kind], int(parameters.get("lists", EF_MAX // 2)))
    factors = _REFINE_FACTORS[parameters["codes"]]
    points: list[EffortPoint] = []
    reached: dict[int, tuple[EffortPoint, float]] = {}
    for depth in held_back.thresholds:
        measured: dict[Effort, Measured] = {}

        def recall(effort: Effort, depth: int = depth, measured: dict[Effort, Measured] = measured) -> float:
            if effort not in measured:
                measured[effort] = measure_recall(index, held_back, depth, effort)
            return measured[effort].safe

        for wanted in sorted({*RECALLS, target}):
            effort = least_effort(recall, ladder, factors, wanted)
            # A graph keeps at least as many candidates as it is asked for.
            kept = math.ceil(depth * effort.refine_factor) if kind == "hnsw" else 1
            ef, refine_factor = max(effort.ef, kept), effort.refine_factor
            point = EffortPoint(depth, ef, refine_factor, recall(effort))
            if wanted == target:
                reached[depth] = (point, measured[effort].mean)
            if point not in points:
                points.append(point)
    shallow, at_10 = reached[min(reached)]
    tuned = {
        **parameters,
        "recall_target": target,
        "ef": shallow.ef,
        "refine_factor": shallow.refine_factor,
        "efforts": [point.to_json() for point in points],
    }
    return tuned, at_10, reached[100][1] if 100 in reached else None


def least_effort(
    recall: Callable[[Effort], float],
    ladder: Sequence[int],
    factors: Sequence[float],
    wanted: float,
) -> Effort:
    """The least ``ef`` whose recall is ``wanted`` when most candidates are rescored, and the fewest of those.

    If none reaches it, the least effort that comes within a thousandth of the best. The high efforts, which
    cost as much as a scan, are tried only where the lower ones do not do.
    """
    low, high = 0, min(4, len(ladder) - 1)
    while (best := recall(Effort(ladder[high], factors[-1]))) < wanted:
        if high == len(ladder) - 1:
            wanted = best - 0.001
            low = 0
            break
        low, high = high + 1, min(high + 4, len(ladder) - 1)
    while low < high:
        middle = (low + high) // 2
        if recall(Effort(ladder[middle], factors[-1])) >= wanted:
            high = middle
        else:
            low = middle + 1
    enough = (Effort(ladder[low], factor) for factor in factors)
    return next((effort for effort in enough if recall(effort) >= wanted), Effort(ladder[low], factors[-1]))


def _ladder(least: int, most: int) -> list[int]:
    """Efforts from ``least`` to ``most``, each about a sixth to a half more than the one before."""
    rungs = [least]
    while rungs[-1] < most:
        rungs.append(min(most, max(rungs[-1] + 1, round(rungs[-1] * 1.2))))
    return rungs
