"""Packed segments: what was written comes back, equal content is one object, damage is told."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bedplate.errors import InternalError
from bedplate.wire.registry import KeyType
from bedplate_store.keys import build_column, parse_keys, to_python
from bedplate_store.merging import merge_segments
from bedplate_store.objects import LocalObjectStore, MemoryObjectStore, ObjectStore
from bedplate_store.packed_segments import empty_column, open_packed, write_packed
from bedplate_store.segments import open_segment, segment_is_whole

DIM = 3


def write(objects: ObjectStore, keys: Any, vectors: Any, key_type: KeyType = "int64", **options: Any) -> Any:
    column = build_column(parse_keys(keys, key_type))
    arguments: dict[str, Any] = {
        "column": column,
        "vectors": vectors,
        "order": None,
        "tombstones": empty_column(key_type),
        "key_type": key_type,
        "dim": DIM,
        "dtype": vectors.dtype.name,
    }
    return write_packed(objects, **{**arguments, **options})


@pytest.fixture(params=["local", "memory"])
def objects(request: pytest.FixtureRequest, tmp_path: Path) -> ObjectStore:
    return LocalObjectStore(tmp_path / "objects") if request.param == "local" else MemoryObjectStore()


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize(
    ("key_type", "keys"), [("int64", [-5, 2, 9]), ("string", ["a", "b\N{GREEK SMALL LETTER BETA}", "c"])]
)
def test_rows_come_back(objects: ObjectStore, tmp_path: Path, dtype: Any, key_type: Any, keys: Any) -> None:
    vectors = np.arange(9).reshape(3, 3).astype(dtype)
    info = write(objects, keys, vectors, key_type)
    segment = open_segment(objects, info.digest, tmp_path / "cache")
    assert segment.info == info
    assert to_python(segment.keys) == keys
    assert len(segment.tombstones) == 0
    assert segment.vectors.dtype == dtype
    assert segment.vectors.tolist() == vectors.tolist()
    assert segment.find(parse_keys(keys, key_type)).tolist() == [0, 1, 2]
    assert segment_is_whole(objects, info)


def test_the_order_says_which_vectors_belong_to_the_keys(objects: ObjectStore, tmp_path: Path) -> None:
    vectors = np.arange(9, dtype=np.float32).reshape(3, 3)
    info = write(objects, [1, 2], vectors, order=np.array([2, 0]))
    assert open_segment(objects, info.digest, tmp_path).vectors.tolist() == vectors[[2, 0]].tolist()


@pytest.mark.parametrize(("key_type", "keys"), [("int64", [3, 4]), ("string", ["x", "y"])])
def test_tombstones_come_back(objects: ObjectStore, tmp_path: Path, key_type: Any, keys: Any) -> None:
    none = np.empty((0, DIM), np.float32)
    column = build_column(parse_keys(keys, key_type))
    info = write(objects, [], none, key_type, tombstones=column)
    segment = open_segment(objects, info.digest, tmp_path)
    assert to_python(segment.tombstones) == keys
    assert segment.vectors.shape == (0, DIM)
    assert (segment.info.rows, segment.info.tombstones) == (0, 2)


def test_equal_content_is_one_object_named_by_its_digest(objects: ObjectStore) -> None:
    vectors = np.ones((1, DIM), np.float32)
    digest = write(objects, [1], vectors).digest
    assert write(objects, [1], vectors).digest == digest
    assert write(objects, [2], vectors).digest != digest
    data = objects.get(f"segments/{digest}/packed")
    assert hashlib.sha256(data).hexdigest() == digest


@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "other"])
def test_damage_is_told(damage: str, tmp_path: Path) -> None:
    objects = MemoryObjectStore()
    info = write(objects, [1], np.ones((1, DIM), np.float32))
    name = f"segments/{info.digest}/packed"
    data = bytearray(objects.get(name))
    if damage == "flip":
        data[-1] ^= 1
    elif damage == "cut":
        del data[-4:]
    elif damage == "empty":
        data.clear()
    else:
        data = bytearray(b"something else altogether, and long enough")
    objects.put(name, bytes(data))
    with pytest.raises(InternalError):
        open_packed(objects, info.digest, tmp_path)


def test_merging_one_write_gives_files_of_their_own(tmp_path: Path) -> None:
    """A snapshot's columns lie in files that clients read by themselves, whatever it was made of."""
    objects = MemoryObjectStore()
    info = write(objects, [1, 2], np.ones((2, DIM), np.float32))
    merged = merge_segments(objects, tmp_path, [info.digest])
    assert {key.rpartition("/")[2] for key in objects.list(f"segments/{merged.digest}/")} == {
        "keys",
        "manifest.json",
        "vectors",
    }
