"""Attribute columns: what is taken, what is refused, and bytes that depend on content alone."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from bedplate.errors import Conflict, InvalidRequest
from bedplate_store import attributes
from bedplate_store.attributes import parse, read, to_bytes
from bedplate_store.merging import merge_segments
from bedplate_store.objects import MemoryObjectStore
from bedplate_store.segments import open_segment, write_segment


@pytest.mark.parametrize(
    ("values", "type_"),
    [
        ([1, None], "int64"),
        (pa.array([1, 2], pa.uint8()), "int64"),
        ([1.5, 2], "float64"),
        ([True, None], "bool"),
        (["a", None], "string"),
        (pa.array(["a", "b"]).dictionary_encode(), "string"),
        ([["a", "b"], []], "list<string>"),
        ([[], None], "list<string>"),
    ],
)
def test_columns_become_one_of_five_types(values: Any, type_: str) -> None:
    table = parse({"x": values}, 2, {})
    assert table is not None
    assert attributes.type_name(table.schema.field("x").type) == type_


def test_a_known_type_is_kept_and_nothing_but_nulls_has_none() -> None:
    table = parse({"x": [1, 2], "y": [None, None]}, 2, {"x": "float64", "y": "string"})
    assert table is not None
    assert table.schema == attributes.schema_of({"x": "float64", "y": "string"})
    assert parse({"x": [None, None]}, 2, {}) is None


@pytest.mark.parametrize(
    ("columns", "known", "error", "says"),
    [
        ({"x": ["a", "b"]}, {"x": "int64"}, Conflict, "is int64 in this space"),
        ({"x": [1.5, 2]}, {"x": "int64"}, Conflict, "came as float64"),
        ({"x": [1]}, {}, InvalidRequest, "1 values for 2 keys"),
        ({"x": [1, "a"]}, {}, InvalidRequest, "not one of"),
        ({"x": [{"a": 1}, {}]}, {}, InvalidRequest, "not one of"),
        ({"x": [2**63, 1]}, {}, InvalidRequest, "not one of"),
        ({"x": [[1], [2]]}, {}, InvalidRequest, "not one of"),
        ({"key": [1, 2]}, {}, InvalidRequest, "no name of an attribute"),
        ({"": [1, 2]}, {}, InvalidRequest, "no name of an attribute"),
        ({f"x{n}": [1, 2] for n in range(65)}, {}, InvalidRequest, "at most 64"),
    ],
)
def test_what_does_not_fit_is_refused(
    columns: dict[str, Any], known: dict[str, str], error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says):
        parse(columns, 2, known)


def test_merged_attributes_are_those_written_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attributes, "_ROWS_PER_BATCH", 7)
    objects = MemoryObjectStore()
    keys = np.arange(40)
    table = parse(
        {"year": keys.tolist(), "genres": [["a"] * (key % 3) if key % 5 else None for key in keys]}, 40, {}
    )
    assert table is not None

    def written(rows: np.ndarray) -> str:
        chosen = table.take(pa.array(rows))
        info = write_segment(
            objects,
            keys=keys[rows],
            vectors=np.ones((len(rows), 2)),
            dtype="float16",
            key_type="int64",
            attributes=chosen,
        )
        return info.digest

    whole = written(keys)
    assert written(keys[::-1]) == whole
    assert merge_segments(objects, tmp_path, [written(keys[::2]), written(keys[1::2])]).digest == whole
    assert merge_segments(objects, tmp_path, [written(keys[:11]), written(keys[11:])]).digest == whole
    opened = open_segment(objects, whole, tmp_path).attributes
    assert opened.equals(table)


def test_merging_unites_attributes_and_a_newer_row_replaces_a_whole_one(tmp_path: Path) -> None:
    objects = MemoryObjectStore()
    older = parse({"year": [1, 2], "kind": ["x", "y"]}, 2, {})
    newer = parse({"year": [0.5, None]}, 2, {})
    digests = [
        write_segment(
            objects,
            keys=keys,
            vectors=np.ones((len(keys), 2)),
            dtype="float16",
            key_type="int64",
            attributes=table,
        ).digest
        for keys, table in (([1, 2], older), ([2, 3], newer), ([4], None))
    ]
    merged = open_segment(objects, merge_segments(objects, tmp_path, digests).digest, tmp_path).attributes
    assert merged.to_pydict() == {"kind": ["x", None, None, None], "year": [1.0, 0.5, None, None]}


def test_the_file_reads_back() -> None:
    table = parse({"x": ["é", None, ""]}, 3, {})
    assert table is not None
    assert read(np.frombuffer(to_bytes(table), np.uint8)).equals(table)
    assert read(np.empty(0, np.uint8)) is None
