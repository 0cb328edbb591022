"""Key columns against Python's own dictionaries."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bedplate.errors import InvalidRequest, KeyTypeMismatch
from bedplate_store import keys as key_module
from bedplate_store.keys import (
    build_column,
    check_writable,
    concatenate,
    parse_keys,
    sort_last_wins,
    take,
    to_python,
)

INTS = st.integers(-(2**63), 2**63 - 1)
# Few letters and zero bytes, so that prefixes, equal hashes of terminators and empty keys come up.
TEXTS = st.text(alphabet="ab\0é\U0001f600", max_size=6)


@given(st.lists(INTS), st.lists(INTS))
def test_int64_keys_are_found_where_they_lie(stored: list[int], asked: list[int]) -> None:
    _check_found("int64", stored, asked + stored)


@given(st.integers(-(2**63), 2**63 - 200), st.integers(1, 100), st.lists(INTS, max_size=5))
def test_keys_without_gaps_need_no_search(first: int, count: int, asked: list[int]) -> None:
    stored = list(range(first, first + count))
    near = [key for key in (first - 1, first + count) if key >= -(2**63)]
    _check_found("int64", stored, asked + stored + near)


@given(st.lists(TEXTS), st.lists(TEXTS))
def test_string_keys_are_found_where_they_lie(stored: list[str], asked: list[str]) -> None:
    _check_found("string", stored, asked + stored)


def test_keys_with_equal_hashes_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(key_module, "hash_keys", lambda keys: np.full(len(keys), 7, np.uint64))
    _check_found("string", ["a", "b", "c", "ab"], ["c", "a", "x", "ab", "b", ""])


def _check_found(key_type: str, stored: list, asked: list) -> None:
    keys = parse_keys(stored, key_type)
    order = sort_last_wins(keys)
    column = build_column(take(keys, order))
    expected = sorted(set(stored), key=lambda key: key.encode() if isinstance(key, str) else key)
    assert to_python(column.keys) == expected
    last = {key: position for position, key in enumerate(stored)}
    assert order.tolist() == [last[key] for key in expected]
    rows = {key: row for row, key in enumerate(expected)}
    found = column.find(parse_keys(asked, key_type))
    assert found.dtype == np.int64
    assert found.tolist() == [rows.get(key, -1) for key in asked]


@given(st.lists(st.lists(TEXTS, max_size=4), max_size=4))
def test_concatenated_strings_keep_their_order(parts: list[list[str]]) -> None:
    joined = concatenate([parse_keys(part, "string") for part in parts], "string")
    assert to_python(joined) == [key for part in parts for key in part]


@pytest.mark.parametrize(
    ("keys", "key_type"),
    [
        (["a"], "int64"),
        ([1.5], "int64"),
        ([True], "int64"),
        ([2**63], "int64"),
        ([-(2**63) - 1], "int64"),
        ([[1]], "int64"),
        ([1], "string"),
        (["a", None], "string"),
        ([b"a"], "string"),
    ],
)
def test_keys_of_the_wrong_type_are_refused(keys: list, key_type: str) -> None:
    with pytest.raises(KeyTypeMismatch):
        parse_keys(keys, key_type)


@pytest.mark.parametrize("dtype", [np.int32, np.uint8, np.uint64])
def test_other_integer_types_are_read_as_int64(dtype: type) -> None:
    keys = parse_keys(np.array([1, 2], dtype), "int64")
    assert keys.dtype == np.int64


@pytest.mark.parametrize(("key", "row"), [("", 1), ("x" * 1025, 1), ("é" * 513, 1)])
def test_keys_that_no_space_may_hold_are_refused_for_writing(key: str, row: int) -> None:
    with pytest.raises(InvalidRequest) as caught:
        check_writable(parse_keys(["good", key], "string"))
    assert caught.value.context["row"] == row


def test_half_a_surrogate_pair_is_no_text_but_merely_unknown_when_read() -> None:
    lone = parse_keys(["\ud800"], "string")
    with pytest.raises(InvalidRequest):
        check_writable(lone)
    assert build_column(parse_keys(["a"], "string")).find(lone).tolist() == [-1]
