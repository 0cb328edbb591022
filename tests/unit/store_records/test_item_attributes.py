"""Features of items as attribute columns of one schema."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from bedplate.errors import Conflict
from bedplate_store.item_attributes import agreed, table_of

TYPES = {"year": "float64", "genres": "list<string>", "seen": "bool", "id": "int64", "title": "string"}


def test_every_partition_has_the_schema_of_the_job() -> None:
    full = {
        "year": 1995,
        "genres": ["Drama", None],
        "seen": True,
        "id": 2**63 - 1,
        "title": "\x00",
        "more": {},
    }
    table = table_of(["a", "b"], [full, {"year": None}], TYPES)
    empty = table_of(["c"], [{}], TYPES)
    assert table is not None
    assert empty is not None
    assert table.schema == empty.schema
    assert table.schema == pa.schema(
        {
            "genres": pa.list_(pa.string()),
            "id": pa.int64(),
            "seen": pa.bool_(),
            "title": pa.string(),
            "year": pa.float64(),
        }
    )
    asked = {name: full[name] for name in TYPES}
    assert table.to_pylist() == [asked, dict.fromkeys(TYPES)]
    assert table_of(["a"], [full], {}) is None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("id", 1.5),
        ("id", True),
        ("id", 2**63),
        ("year", "1995"),
        ("year", False),
        ("genres", "Drama"),
        ("genres", [1]),
        ("seen", 1),
        ("title", {"en": "Heat"}),
    ],
)
def test_a_value_that_changed_its_type_names_item_and_attribute(name: str, value: Any) -> None:
    with pytest.raises(Conflict) as caught:
        table_of(["fits", "changed"], [{}, {name: value}], TYPES)
    assert "'changed'" in str(caught.value)
    assert f"'{name}'" in str(caught.value)
    assert caught.value.context == {"item": "changed", "attribute": name, "type": TYPES[name]}


def test_the_space_has_the_last_word() -> None:
    assert agreed({"year": "int64", "title": "string"}, {"year": "float64"}) == {
        "year": "float64",
        "title": "string",
    }
    with pytest.raises(Conflict, match="'year' is int64 in this space and float64 in the catalogue"):
        agreed({"year": "float64"}, {"year": "int64"})
