from __future__ import annotations

from datetime import UTC, datetime
from itertools import count

import pytest

from bedplate.wire.registry import Evaluation, SpaceRead
from bedplate_registry.storage_costs import ne_costs

START, END, LATER = (datetime(2026, 1, day, tzinfo=UTC) for day in (1, 8, 15))
ALIKE = {"core@7", "core@8"}
_ids = count(1)


def _measured(ne: float, storage: str, spaces=("core@7/item", "core@7/user"), **members) -> Evaluation:
    values = {
        "subject": "ranker@3",
        "surface": "feed",
        "window_start": START,
        "window_end": END,
        "rows": 1,
        "team": "t",
        "metrics": {"ne": ne},
        "reads": [SpaceRead(space=space, storage=storage) for space in spaces],
    }
    return Evaluation(id=next(_ids), created_at=START, **(values | members))


def _costs(*evaluations):
    return ne_costs(evaluations, ALIKE)


def test_a_cost_is_a_difference_to_float32():
    exact, half, byte, nibble = (
        _measured(ne, storage)
        for ne, storage in ((0.8, "float32"), (0.801, "float16"), (0.804, "int8"), (0.83, "int4"))
    )
    found = _costs(nibble, exact, byte, half)
    assert [(one.storage, one.against) for one in found] == [
        ("float16", "float32"),
        ("int8", "float32"),
        ("int4", "float32"),
    ]
    assert [one.cost for one in found] == pytest.approx([0.001, 0.004, 0.03])
    assert (found[1].ne, found[1].ne_against, found[1].seeds, found[1].cost_std) == (0.804, 0.8, 1, None)
    assert (found[1].expert, found[1].surface, found[1].spaces) == ("ranker", "feed", ["item", "user"])


def test_without_float32_the_difference_is_to_float16():
    (found,) = _costs(_measured(0.81, "int8"), _measured(0.8, "float16"))
    assert (found.storage, found.against, found.cost) == ("int8", "float16", pytest.approx(0.01))


def test_seeds_are_paired_and_spread_is_told():
    exact = [_measured(ne, "float32", seed=seed) for seed, ne in enumerate((0.80, 0.84))]
    byte = [_measured(ne, "int8", seed=seed) for seed, ne in enumerate((0.81, 0.86, 0.1))]
    (found,) = _costs(*byte, *exact)
    assert (found.seeds, found.cost) == (2, pytest.approx(0.015))
    assert found.cost_std == pytest.approx(0.01 / 2**0.5)
    assert found.ne_against == pytest.approx(0.82)


def test_the_finest_storage_that_shares_a_seed_is_compared_with():
    (found,) = _costs(
        _measured(0.7, "float32", seed=5), _measured(0.8, "float16", seed=1), _measured(0.81, "int8", seed=1)
    )
    assert (found.storage, found.against, found.cost) == ("int8", "float16", pytest.approx(0.01))


def test_versions_of_the_same_weights_are_compared_and_so_are_versions_of_the_expert():
    compressed = _measured(0.81, "int8", ("core@8/item", "core@8/user"), subject="ranker@4")
    (found,) = _costs(_measured(0.8, "float16"), compressed)
    assert found.cost == pytest.approx(0.01)


def test_the_last_of_two_measurements_counts_in_any_order_of_the_list():
    wrong, right = _measured(0.5, "float16"), _measured(0.8, "float16")
    (found,) = _costs(_measured(0.81, "int8"), right, wrong)
    assert found.ne_against == 0.8


@pytest.mark.parametrize(
    "unlike",
    [
        {"surface": "reels"},
        {"task": "like"},
        {"window_end": LATER},
        {"variant": "tae"},
        {"seed": 5},
        {"subject": "other@3"},
        {"metrics": {"auc": 0.7}},
        {"spaces": ("core@7/item",)},
        {"spaces": ("core@7/item", "core@9/user")},
        {"spaces": ()},
    ],
)
def test_only_like_is_compared_with_like(unlike):
    assert _costs(_measured(0.8, "float16"), _measured(0.81, "int8", **unlike)) == []


def test_what_was_read_half_compressed_is_compared_with_nothing():
    mixed = [
        SpaceRead(space="core@7/item", storage="int8"),
        SpaceRead(space="core@7/user", storage="float16"),
    ]
    assert _costs(_measured(0.8, "float16"), _measured(0.81, "int8", reads=mixed)) == []


def test_compressed_alone_costs_nothing_that_is_known():
    assert _costs(_measured(0.8, "int8"), _measured(0.9, "int4"), _measured(0.7, "float32", seed=1)) == []
