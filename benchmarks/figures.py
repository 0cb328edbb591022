"""Figures: what was measured, beside the physical limit measured in the same run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Sample:
    """One round of one side.

    Attributes:
        rate: units of work a second.
        seconds: float64 [calls], how long each call took; empty where calls were not timed one by one.
    """

    rate: float
    seconds: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))

    @classmethod
    def of(cls, work: float, seconds: float) -> Sample:
        """``work`` units done in ``seconds``."""
        return cls(work / seconds)


@dataclass(frozen=True)
class Figure:
    """A measured rate, the limit's rate, and the share of the limit that was reached.

    Attributes:
        value, limit: medians over the rounds, in ``unit``.
        ratio: median over the rounds of value / limit *within* a round, so that what slows the whole machine
            for a while slows both sides of a pair. 1.0 is the limit.
        details: further absolute figures; their names carry units.
    """

    benchmark: str
    name: str
    unit: str
    value: float
    limit: float
    limit_name: str
    ratio: float
    rounds: int
    details: Mapping[str, float] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return {**self.__dict__, "details": dict(self.details)}


@dataclass(frozen=True)
class Pairs:
    """Rounds in which product and limit were measured one after the other."""

    product: Sequence[Sample]
    limit: Sequence[Sample]

    @property
    def ratio(self) -> float:
        """Median of the rounds' own ratios."""
        return median([ours.rate / bare.rate for ours, bare in zip(self.product, self.limit, strict=True)])

    def figure(
        self,
        benchmark: str,
        name: str,
        unit: str,
        limit_name: str,
        details: Mapping[str, float] | None = None,
    ) -> Figure:
        """Medians, the ratio, and p50 and p99 of both sides where calls were timed."""
        return Figure(
            benchmark=benchmark,
            name=name,
            unit=unit,
            value=median([sample.rate for sample in self.product]),
            limit=median([sample.rate for sample in self.limit]),
            limit_name=limit_name,
            ratio=self.ratio,
            rounds=len(self.product),
            details={**latencies("", self.product), **latencies("limit_", self.limit), **(details or {})},
        )


def interleave(
    rounds: int,
    product: Callable[[int], Sample],
    limit: Callable[[int], Sample],
    *,
    warm_up: bool = True,
) -> Pairs:
    """Measure both sides ``rounds`` times, in turns; who goes first changes every round.

    Each side is called with a number that no other call gets, so that it can choose data no other call
    has just warmed up. With ``warm_up`` the first call of each side is not counted.
    """
    ours: list[Sample] = []
    bare: list[Sample] = []
    if warm_up:
        product(-1)
        limit(-2)
    for number in range(rounds):
        sides = [(product, ours), (limit, bare)]
        for place, (measure, samples) in enumerate(sides if number % 2 == 0 else reversed(sides)):
            samples.append(measure(2 * number + place))
    return Pairs(ours, bare)


def median(values: Sequence[float]) -> float:
    return float(np.median(values))


def percentile_ms(seconds: NDArray[np.float64], percent: float) -> float:
    """Percentile of durations, in milliseconds, linear between neighbours."""
    return float(np.percentile(seconds, percent)) * 1000


def latencies(prefix: str, samples: Sequence[Sample]) -> dict[str, float]:
    """``p50_ms`` and ``p99_ms`` over the calls of all rounds; nothing where none was timed."""
    seconds = np.concatenate([sample.seconds for sample in samples])
    if len(seconds) == 0:
        return {}
    return {f"{prefix}p{percent}_ms": percentile_ms(seconds, percent) for percent in (50, 99)}
