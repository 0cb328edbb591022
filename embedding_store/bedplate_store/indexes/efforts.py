"""How hard an index searches: measured points, and the choice among them.

A point says: with this effort and this many candidates scored again, the index found this share of the exact
``depth`` nearest. Points of several depths answer for any number of results, and for filters too: the best
k of the rows that pass are, where one row in s passes, among about the best k * s of all.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any


@dataclass(frozen=True, slots=True)
class Effort:
    """``ef``: lists probed, or candidates a graph keeps; ``refine_factor``: how many are rescored for one."""

    ef: int
    refine_factor: float


@dataclass(frozen=True, slots=True)
class ChosenEffort(Effort):
    """``reached``: whether it was measured to reach the recall."""

    reached: bool


@dataclass(frozen=True, slots=True)
class EffortPoint:
    """Recall at ``depth`` results, as measured, less its standard error: queries to come are others."""

    depth: int
    ef: int
    refine_factor: float
    recall: float

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def read_points(parameters: Mapping[str, Any]) -> list[EffortPoint]:
    """The points that tuning left in an index's parameters."""
    return [EffortPoint(**point) for point in parameters["efforts"]]


def choose(
    points: Iterable[EffortPoint], k: int, recall: float, *, share: float = 1.0, ef_max: int
) -> ChosenEffort:
    """The effort for ``k`` results at ``recall`` where ``share`` of the rows may be returned.

    Between measured depths the effort is interpolated, beyond the deepest it grows with the depth. Where
    ``recall`` was not reached, the best that was measured.
    """
    chosen = [_at_depth(list(group), recall) for group in _by_depth(points)]
    depth = k / share
    ef = _interpolated([(point.depth, point.ef) for point in chosen], depth)
    # Re-ranking makes up for codes that mislead; how many of them it takes depends on k alone.
    refine = next((point for point in reversed(chosen) if point.depth <= k), chosen[0])
    deeper = next((point for point in chosen if point.depth >= depth), chosen[-1])
    return ChosenEffort(min(math.ceil(ef), ef_max), refine.refine_factor, deeper.recall >= recall)


def _by_depth(points: Iterable[EffortPoint]) -> list[list[EffortPoint]]:
    groups: dict[int, list[EffortPoint]] = {}
    for point in points:
        groups.setdefault(point.depth, []).append(point)
    return [groups[depth] for depth in sorted(groups)]


def _at_depth(points: Sequence[EffortPoint], recall: float) -> EffortPoint:
    enough = [point for point in points if point.recall >= recall]
    if enough:
        return min(enough, key=lambda point: (point.ef, point.refine_factor))
    return max(points, key=lambda point: point.recall)


def _interpolated(curve: Sequence[tuple[int, int]], depth: float) -> float:
    """``ef`` at ``depth`` from (depth, ef) points; straight lines between logarithms, never falling."""
    if depth <= curve[0][0] or len(curve) == 1:
        scale = max(1.0, depth / curve[0][0]) if len(curve) == 1 else 1.0
        return curve[0][1] * scale
    for (low, low_ef), (high, high_ef) in pairwise(curve):
        if depth <= high:
            part = math.log(depth / low) / math.log(high / low)
            return float(max(low_ef, low_ef * (max(high_ef, low_ef) / low_ef) ** part))
    return curve[-1][1] * depth / curve[-1][0]
