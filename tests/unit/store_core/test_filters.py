"""Filters: the rows that pass, with nulls that never do, and messages that name what there is."""

from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from bedplate.errors import InvalidRequest
from bedplate.wire.filters import Filter
from bedplate_store.attributes import parse
from bedplate_store.filters import FilterCache, evaluate

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
    cache, made = FilterCache(2), []
    filters = [Filter(attribute="x", equals=number) for number in range(3)]

    def get(number: int) -> int:
        result: int = cache.get(filters[number], lambda: made.append(number) or number)
        return result

    assert [get(number) for number in (0, 1, 0, 2, 0, 1)] == [0, 1, 0, 2, 0, 1]
    assert made == [0, 1, 2, 1]
