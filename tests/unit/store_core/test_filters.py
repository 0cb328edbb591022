"""Filters: the rows that pass, with nulls that never do, and messages that name what there is."""

from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from bedplate.errors import InvalidRequest
from bedplate.wire.filters import Filter
from bedplate_store.attributes import parse
from bedplate_store.filters import FilterCache, evaluate
from bedplate_store.indexes import RowSelection
from bedplate_store.indexes.faiss_views import FlatRows

COLUMNS = {
    "year": [1989, 1990, 1995, None, 2001],
    "score": [0.5, None, 1.0, 2.0, -1.0],
    "kind": ["a", "b", None, "a", "c"],
    "free": [True, False, None, True, False],
    "genres": [["Action", "Drama"], [], None, ["Drama"], ["Action"]],
}
TABLE = parse(COLUMNS, 5, {})
TYPES = {
    "year": "int64",
    "score": "float64",
    "kind": "string",
    "free": "bool",
    "genres": "list<string>",
    "later": "int64",
}


def passing(filter: dict[str, Any]) -> list[int]:
    return np.flatnonzero(evaluate(Filter.model_validate(filter), TABLE, TYPES, 5)).tolist()


@pytest.mark.parametrize(
    ("filter", "rows"),
    [
        ({"attribute": "year", "equals": 1990}, [1]),
        ({"attribute": "year", "equals": 1990.0}, [1]),
        ({"attribute": "year", "at_least": 1990, "at_most": 1995}, [1, 2]),
        ({"attribute": "year", "any_of": [1989, 2001, 7]}, [0, 4]),
        ({"attribute": "score", "at_least": 1}, [2, 3]),
        ({"attribute": "kind", "equals": "a"}, [0, 3]),
        ({"attribute": "kind", "at_least": "b"}, [1, 4]),
        ({"attribute": "free", "equals": True}, [0, 3]),
        ({"attribute": "free", "equals": False}, [1, 4]),
        ({"attribute": "genres", "equals": "Drama"}, [0, 3]),
        ({"attribute": "genres", "any_of": ["Action", "x"]}, [0, 4]),
        ({"not": {"attribute": "genres", "equals": "Drama"}}, [1, 4]),
        ({"not": {"attribute": "year", "equals": 1990}}, [0, 2, 4]),
        ({"all": [{"attribute": "kind", "equals": "a"}, {"attribute": "year", "at_most": 1990}]}, [0]),
        ({"any": [{"attribute": "kind", "equals": "a"}, {"attribute": "year", "equals": 1995}]}, [0, 2, 3]),
        ({"attribute": "later", "at_least": 0}, []),
        ({"not": {"attribute": "later", "at_least": 0}}, []),
    ],
)
def test_the_rows_that_pass(filter: dict[str, Any], rows: list[int]) -> None:
    assert passing(filter) == rows


@pytest.mark.parametrize(
    ("filter", "says"),
    [
        ({"attribute": "jear", "equals": 1}, "no attribute 'jear'; it has: free \\(bool\\), genres"),
        ({"attribute": "year", "equals": "1990"}, "is int64; '1990' cannot"),
        ({"attribute": "year", "equals": True}, "is int64; True cannot"),
        ({"attribute": "kind", "any_of": ["a", 1]}, "is string; 1 cannot"),
        ({"attribute": "free", "at_least": True}, "has no order"),
        ({"attribute": "genres", "at_most": "x"}, "has no order"),
        ({"attribute": "later", "equals": "x"}, "is int64"),
    ],
)
def test_what_cannot_be_compared_is_told(filter: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidRequest, match=says):
        passing(filter)


@pytest.mark.parametrize(
    "filter",
    [
        {},
        {"attribute": "year"},
        {"equals": 1},
        {"all": []},
        {"all": [{"attribute": "x", "equals": 1}], "any": [{"attribute": "x", "equals": 1}]},
        {"attribute": "x", "equals": 1, "not": {"attribute": "x", "equals": 1}},
        {"attribute": "x", "equals": [1]},
        {"attribute": "x", "like": "y"},
    ],
)
def test_malformed_filters_are_refused(filter: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Filter.model_validate(filter)


def test_filters_nest_only_so_deep() -> None:
    filter: dict[str, Any] = {"attribute": "x", "equals": 1}
    for _ in range(8):
        filter = {"not": filter}
    with pytest.raises(ValidationError, match="8 deep"):
        Filter.model_validate(filter)


def test_the_cache_keeps_what_was_asked_for_last() -> None:
    cache, made = FilterCache(20), []
    filters = [Filter(attribute="x", equals=number) for number in range(3)]

    def get(number: int, bytes_: int = 10) -> int:
        result: int = cache.get("rows", filters[number], lambda: (made.append(number) or number, bytes_))
        return result

    assert [get(number) for number in (0, 1, 0, 2, 0, 1)] == [0, 1, 0, 2, 0, 1]
    assert made == [0, 1, 2, 1]
    get(2, bytes_=21)
    assert (cache._bytes, len(cache._made)) == (0, 0), "what does not fit is not kept"


def test_the_cache_tells_equal_numbers_of_different_types_and_other_rows_apart() -> None:
    cache = FilterCache()
    filters = [Filter(attribute="x", equals=value) for value in (1, True, 1.0)]
    kept = [
        cache.get(scope, each, lambda number=number: (number, 1))
        for number, (scope, each) in enumerate((scope, each) for scope in "ab" for each in filters)
    ]
    assert kept == list(range(6))


def test_selections_keep_few_bytes_beside_their_bits() -> None:
    for rows, selected in ((10_003, 100), (200_003, 180_000)):
        mask = np.zeros(rows, np.bool_)
        mask[np.random.default_rng(1).permutation(rows)[:selected]] = True
        selection = RowSelection.of(mask)
        vectors = np.ones((rows, 8), np.float32)
        FlatRows(vectors, "l2").search(vectors[:1], 3, selection)
        assert selection.count == selected
        assert selection.rows.tolist() == np.flatnonzero(mask).tolist()
        for start, stop in ((0, 5), (13, 4_099), (9_999, rows + 50)):
            assert selection.mask(start, stop).tolist() == mask[start:stop].tolist()
        kept = selection.prepared.get("gathered")
        held = selection.bits.nbytes + (0 if kept is None else kept.vectors.nbytes)
        held += selection.rows.nbytes if "_kept_rows" in vars(selection) else 0
        assert held <= selection.bytes_at_most(32) <= rows / 4 + 100 * 40 + 17_000
