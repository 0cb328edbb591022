"""The arithmetic of the figures; nothing here measures time."""

from __future__ import annotations

import numpy as np
import pytest
from benchmarks.figures import Pairs, Sample, interleave, percentile_ms
from benchmarks.report import number


def test_the_ratio_is_the_median_of_the_rounds_own_ratios() -> None:
    # The second round ran on a machine half as fast: both sides halved, and the ratio did not.
    pairs = Pairs([Sample(50), Sample(25), Sample(60)], [Sample(100), Sample(50), Sample(100)])
    figure = pairs.figure("lookup", "name", "rows/s", "limit")
    assert (figure.value, figure.limit, figure.ratio, figure.rounds) == (50, 100, 0.5, 3)


def test_percentiles_are_over_the_calls_of_all_rounds() -> None:
    first, second = np.arange(1, 51) / 1000, np.arange(51, 102) / 1000
    pairs = Pairs([Sample(1, first), Sample(1, second)], [Sample(1), Sample(1)])
    details = pairs.figure("lookup", "name", "rows/s", "limit", {"bytes": 7.0}).details
    assert details == pytest.approx({"p50_ms": 51.0, "p99_ms": 100.0, "bytes": 7.0})


def test_a_percentile_lies_between_its_neighbours() -> None:
    assert percentile_ms(np.array([0.001, 0.003]), 50) == pytest.approx(2.0)


def test_a_sample_of_work_and_seconds() -> None:
    assert Sample.of(30, 1.5).rate == 20


def test_rounds_alternate_who_goes_first_and_never_repeat_a_number() -> None:
    calls: list[tuple[str, int]] = []

    def product(number: int) -> Sample:
        calls.append(("product", number))
        return Sample(number + 100)

    def limit(number: int) -> Sample:
        calls.append(("limit", number))
        return Sample(number + 200)

    pairs = interleave(3, product, limit)
    assert [name for name, _ in calls] == [
        *("product", "limit"),  # the warm-up
        *("product", "limit"),
        *("limit", "product"),
        *("product", "limit"),
    ]
    assert len({number for _, number in calls}) == len(calls)
    assert [sample.rate for sample in pairs.product] == [100, 103, 104]  # the warm-up is not counted
    assert [sample.rate for sample in pairs.limit] == [201, 202, 205]


@pytest.mark.parametrize(
    ("value", "shown"), [(1234567.8, "1,234,568"), (99.96, "100"), (0.01234, "0.0123"), (100, "100")]
)
def test_numbers_have_three_significant_digits(value: float, shown: str) -> None:
    assert number(value) == shown
