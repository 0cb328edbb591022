"""Vectors of candidates and users, by keys that come as text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from bedplate_services.serving.rankings import _lookup
from bedplate_store.space_reader import LookupResult


@dataclass
class Space:
    """Holds one row, float16 [2], for each of ``keys``."""

    key_type: str
    keys: list[Any]
    dim: int = 2

    def lookup(self, keys: Any, dtype: str) -> LookupResult:
        if self.key_type == "int64":
            assert keys.dtype == np.int64
        found = np.array([key in self.keys for key in keys], np.bool_)
        return LookupResult(found, np.ones((len(keys), 2), dtype) * found[:, None], 1, 1)


@pytest.mark.parametrize(
    ("key", "found"),
    [
        ("7", True),
        ("-1", True),
        ("9223372036854775807", True),
        ("-9223372036854775808", True),
        ("9223372036854775808", False),
        ("9" * 256, False),
        ("unknown", False),
        ("", False),
        ("1_0", False),
        (" 7", False),
        ("٧", False),
        ("8", False),
    ],
)
def test_text_in_a_space_of_integers(key: str, found: bool) -> None:
    space = Space("int64", [7, -1, 0, 10, 2**63 - 1, -(2**63)])
    vectors, mask = _lookup(space, ["7", key, "-1"])  # type: ignore[arg-type]  # a stand-in, see above
    assert mask.tolist() == [True, found, True]
    assert vectors.dtype == np.float32
    assert vectors.tolist() == [[1, 1], [found, found], [1, 1]]


def test_nothing_but_unknown_text() -> None:
    vectors, mask = _lookup(Space("int64", [-1]), ["a", "b"])  # type: ignore[arg-type]  # as above
    assert (vectors.tolist(), mask.tolist()) == ([[0, 0], [0, 0]], [False, False])


def test_text_in_a_space_of_strings() -> None:
    vectors, mask = _lookup(Space("string", ["9" * 30]), ["9" * 30, "a"])  # type: ignore[arg-type]  # as above
    assert (vectors.tolist(), mask.tolist()) == ([[1, 1], [0, 0]], [True, False])
