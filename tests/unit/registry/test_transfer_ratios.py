from __future__ import annotations

from datetime import UTC, datetime
from itertools import count

import pytest

from bedplate.wire.registry import Evaluation
from bedplate_registry.transfer_ratios import transfer_ratios

START, END, LATER = (datetime(2026, 1, day, tzinfo=UTC) for day in (1, 8, 15))
PINS = {"ranker@1": "core@1", "ranker@2": "core@2", "plain@1": None, "other@1": "core@1", "other@2": "core@2"}
_ids = count(1)


def _measured(subject: str, ne: float, **members) -> Evaluation:
    values = {"surface": "feed", "window_start": START, "window_end": END, "rows": 1, "team": "t"} | members
    return Evaluation(
        id=next(_ids), subject=subject, metrics={"ne": ne, "auc": 0.7}, created_at=START, **values
    )


def _ratios(evaluations):
    return transfer_ratios(evaluations, PINS, from_version="core@1", to_version="core@2")


FOUNDATION = [_measured("core@1", 0.90), _measured("core@2", 0.80)]


def test_the_formula():
    (found,) = _ratios([*FOUNDATION, _measured("ranker@1", 0.88), _measured("ranker@2", 0.80)])
    assert found.ratio == pytest.approx((0.88 - 0.80) / (0.90 - 0.80))
    assert (found.foundation_ne_from, found.foundation_ne_to) == (0.90, 0.80)
    assert (found.expert_ne_from, found.expert_ne_to) == (0.88, 0.80)
    assert (found.expert, found.seeds, found.ratio_std, found.reason) == ("ranker", 1, None, None)


def test_seeds_are_paired_and_spread_is_told():
    sides = [("ranker@1", 0.88, 1), ("ranker@2", 0.80, 1), ("ranker@1", 0.90, 2), ("ranker@2", 0.78, 2)]
    lonely = _measured("ranker@1", 0.1, seed=3)
    (found,) = _ratios([*FOUNDATION, lonely, *(_measured(who, ne, seed=seed) for who, ne, seed in sides)])
    assert found.seeds == 2
    assert found.ratio == pytest.approx((0.8 + 1.2) / 2)
    assert found.ratio_std == pytest.approx(0.4 / 2**0.5)
    assert found.expert_ne_from == pytest.approx(0.89)


def test_foundation_ne_is_the_mean_over_its_seeds():
    foundation = [_measured("core@1", ne, seed=seed) for seed, ne in enumerate((0.85, 0.95))]
    experts = [_measured("ranker@1", 0.9), _measured("ranker@2", 0.85)]
    (found,) = _ratios([*foundation, _measured("core@2", 0.8), *experts])
    assert found.ratio == pytest.approx(0.5)


def test_the_last_of_two_measurements_counts_in_any_order_of_the_list():
    wrong = _measured("ranker@1", 0.5)
    right = [_measured("ranker@1", 0.88), _measured("ranker@2", 0.80)]
    (found,) = _ratios([*right, wrong, *FOUNDATION])
    assert found.expert_ne_from == 0.88


@pytest.mark.parametrize(
    "unlike",
    [{"surface": "reels"}, {"task": "like"}, {"window_end": LATER}, {"variant": "vectors"}, {"seed": 5}],
)
def test_only_like_is_compared_with_like(unlike):
    assert _ratios([*FOUNDATION, _measured("ranker@1", 0.88), _measured("ranker@2", 0.80, **unlike)]) == []


def test_one_expert_is_not_compared_with_another():
    assert _ratios([*FOUNDATION, _measured("ranker@1", 0.88), _measured("other@2", 0.80)]) == []
    assert _ratios([*FOUNDATION, _measured("plain@1", 0.88), _measured("unknown@2", 0.80)]) == []


def test_every_expert_variant_and_window_in_order():
    def pair(name: str, **members):
        return [_measured(f"{name}@1", 0.88, **members), _measured(f"{name}@2", 0.80, **members)]

    second = [_measured("core@1", 0.9, window_end=LATER), _measured("core@2", 0.8, window_end=LATER)]
    evaluations = [
        *pair("ranker", window_end=LATER),
        *second,
        *pair("ranker", variant="tae"),
        *pair("other"),
        *FOUNDATION,
        *pair("ranker"),
    ]
    found = [(one.window_end, one.expert, one.variant) for one in _ratios(evaluations)]
    assert found == [(END, "other", ""), (END, "ranker", ""), (END, "ranker", "tae"), (LATER, "ranker", "")]


def test_without_a_gain_there_is_no_ratio():
    for after in (0.9, 0.8997, 0.95):
        flat = [_measured("core@1", 0.9), _measured("core@2", after)]
        (found,) = _ratios([*flat, _measured("ranker@1", 0.88), _measured("ranker@2", 0.80)])
        assert found.ratio is None
        assert "no gain to transfer" in (found.reason or "")


def test_without_ne_of_the_foundation_there_is_nothing():
    experts = [_measured("ranker@1", 0.88), _measured("ranker@2", 0.80)]
    without = FOUNDATION[1].model_copy(update={"metrics": {"auc": 0.7}})
    assert _ratios([FOUNDATION[0], without, *experts]) == []
    assert _ratios([]) == []
