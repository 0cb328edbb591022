from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bedplate_modeling.metrics import MetricUndefined, auc, cross_entropy, normalized_entropy, transfer_ratio


def test_base_rate_has_normalized_entropy_one() -> None:
    label = np.array([1, 0, 0, 1, 0])
    assert normalized_entropy(label, np.full(5, 0.4)) == pytest.approx(1.0, abs=1e-12)


def test_normalized_entropy_of_a_hand_computed_case() -> None:
    found = normalized_entropy([1, 0], [0.8, 0.3])
    assert found == pytest.approx(-(math.log(0.8) + math.log(0.7)) / 2 / math.log(2), abs=1e-12)


def test_sure_and_wrong_is_bad_but_finite() -> None:
    assert 10 < cross_entropy([1, 0], [0.0, 1.0]) < 20


@given(
    st.lists(st.tuples(st.booleans(), st.integers(-4, 4)), min_size=2, max_size=40).filter(
        lambda rows: len({label for label, _ in rows}) == 2
    )
)
def test_auc_is_the_share_of_ordered_pairs(rows: list[tuple[bool, int]]) -> None:
    positive = [score for label, score in rows if label]
    negative = [score for label, score in rows if not label]
    pairs = [1.0 if p > n else 0.5 if p == n else 0.0 for p in positive for n in negative]
    found = auc([float(label) for label, _ in rows], [float(score) for _, score in rows])
    assert found == pytest.approx(sum(pairs) / len(pairs), abs=1e-12)


def test_auc_survives_any_increasing_map() -> None:
    random = np.random.default_rng(0)
    label, score = random.integers(0, 2, 500), random.normal(size=500)
    assert auc(label, score) == pytest.approx(auc(label, np.exp(score)), abs=1e-12)


def test_transfer_ratio() -> None:
    assert transfer_ratio(0.90, 0.88, 0.92, 0.89) == pytest.approx(2 / 3)
    with pytest.raises(MetricUndefined, match="same NE"):
        transfer_ratio(0.9, 0.8, 0.7, 0.7)
    with pytest.raises(MetricUndefined, match="finite"):
        transfer_ratio(float("nan"), 0.8, 0.7, 0.6)


@pytest.mark.parametrize(
    ("label", "probability", "reason"),
    [
        ([], [], "no samples"),
        ([1, 1], [0.5, 0.5], "both classes"),
        ([1, 0], [0.5], "equal vectors"),
        ([1, 0], [0.5, float("nan")], "finite"),
        ([1, 2], [0.5, 0.5], "0 or 1"),
        ([1, 0], [0.5, 1.5], r"\[0, 1\]"),
    ],
)
def test_undefined_inputs_say_why(label: list[float], probability: list[float], reason: str) -> None:
    with pytest.raises(MetricUndefined, match=reason):
        normalized_entropy(label, probability)
