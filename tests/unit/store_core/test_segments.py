"""Segments: content-addressed, verified, and merged as a dictionary would be updated."""

import json
from pathlib import Path

import numpy as np
import pytest

from bedplate.errors import (
    DimensionMismatch,
    InternalError,
    InvalidRequest,
    NonFiniteVectors,
    NotFound,
)
from bedplate_store.keys import parse_keys
from bedplate_store.objects import LocalObjectStore, MemoryObjectStore
from bedplate_store.segments import (
    SegmentInfo,
    open_segment,
    segment_is_whole,
    validate_vectors,
    write_segment,
)

DIM = 3


def _rows(keys: list, start: int = 0) -> np.ndarray:
    return np.arange(start, start + len(keys) * DIM, dtype=np.float32).reshape(len(keys), DIM)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize(("key_type", "keys"), [("int64", [9, -4, 5]), ("string", ["z", "aé", "b"])])
def test_a_segment_gives_back_what_was_written(key_type: str, keys: list, dtype: str, tmp_path: Path) -> None:
    objects = MemoryObjectStore()
    info = write_segment(objects, keys=keys, vectors=_rows(keys), dtype=dtype, key_type=key_type)
    segment = open_segment(objects, info.digest, tmp_path)
    assert segment.info == info
    assert SegmentInfo.from_json(json.loads(json.dumps(info.to_json()))) == info
    found = segment.find(parse_keys(keys, key_type))
    assert (segment.vectors[found] == _rows(keys)).all()
    assert (segment.scan == segment.vectors).all()
    assert segment.vectors.dtype == dtype
    assert not segment.vectors.flags.writeable


def test_the_format_does_not_change_unnoticed() -> None:
    """These digests cover every byte of the files; a segment written today must be read for ever."""
    objects = MemoryObjectStore()
    numbers = write_segment(
        objects, keys=[3, 1], vectors=_rows([3, 1]), tombstones=[2], dtype="float16", key_type="int64"
    )
    texts = write_segment(
        objects,
        keys=["b", "é"],
        vectors=_rows(["b", "é"]),
        tombstones=["a"],
        dtype="float32",
        key_type="string",
    )
    assert numbers.digest == "99b8576fd7f1c408d19e4c4edc77c826addb1c54c76c3a680fd8f77a3f6f27e8"
    assert texts.digest == "70dc26fc2b886a88c41bf507e508e95e30889b356be47467b85f40f498424bee"


def test_the_digest_depends_on_content_and_not_on_order() -> None:
    objects = MemoryObjectStore()
    rows = _rows([1, 2, 3])
    first = write_segment(objects, keys=[1, 2, 3], vectors=rows, dtype="float16", key_type="int64")
    other = write_segment(objects, keys=[2, 3, 1], vectors=rows[[1, 2, 0]], dtype="float16", key_type="int64")
    changed = write_segment(objects, keys=[1, 2, 4], vectors=rows, dtype="float16", key_type="int64")
    assert first == other
    assert changed.digest != first.digest


def test_the_last_of_equal_keys_counts(tmp_path: Path) -> None:
    objects = MemoryObjectStore()
    info = write_segment(objects, keys=[1, 1], vectors=_rows([1, 1]), dtype="float32", key_type="int64")
    assert info.rows == 1
    assert open_segment(objects, info.digest, tmp_path).vectors.tolist() == [[3, 4, 5]]


def test_a_key_cannot_be_written_and_deleted_at_once() -> None:
    objects = MemoryObjectStore()
    with pytest.raises(InvalidRequest, match="both"):
        write_segment(
            objects, keys=[1], vectors=_rows([1]), tombstones=[1], dtype="float16", key_type="int64"
        )
    assert list(objects.list("")) == []


def test_a_segment_without_its_manifest_does_not_exist(tmp_path: Path) -> None:
    objects = MemoryObjectStore()
    info = write_segment(objects, keys=[1], vectors=_rows([1]), dtype="float16", key_type="int64")
    assert segment_is_whole(objects, info)
    objects.delete(f"segments/{info.digest}/manifest.json")
    assert not segment_is_whole(objects, info)
    with pytest.raises(NotFound):
        open_segment(objects, info.digest, tmp_path)


@pytest.mark.parametrize("name", ["vectors", "keys", "manifest.json"])
def test_a_damaged_file_is_told_when_it_is_fetched(name: str, tmp_path: Path) -> None:
    objects = MemoryObjectStore()
    info = write_segment(objects, keys=[1], vectors=_rows([1]), dtype="float16", key_type="int64")
    key = f"segments/{info.digest}/{name}"
    data = bytearray(objects.get(key))
    data[-1] ^= 1
    objects.put(key, bytes(data))
    with pytest.raises(InternalError, match=r"damaged|digest"):
        open_segment(objects, info.digest, tmp_path)
    assert not list(tmp_path.rglob(f"*{name}*"))  # the cache never holds a wrong file


def test_a_truncated_file_is_told_in_place(tmp_path: Path) -> None:
    objects = LocalObjectStore(tmp_path / "objects")
    info = write_segment(objects, keys=[1], vectors=_rows([1]), dtype="float16", key_type="int64")
    objects.put(f"segments/{info.digest}/vectors", b"\0")
    with pytest.raises(InternalError, match="bytes instead of"):
        open_segment(objects, info.digest, tmp_path / "cache")


def test_an_open_segment_outlives_its_files(tmp_path: Path) -> None:
    objects = LocalObjectStore(tmp_path / "objects")
    info = write_segment(objects, keys=[1, 2], vectors=_rows([1, 2]), dtype="float16", key_type="int64")
    segment = open_segment(objects, info.digest, tmp_path / "cache")
    for key in list(objects.list("")):
        objects.delete(key)
    assert segment.vectors.tolist() == _rows([1, 2]).tolist()


@pytest.mark.parametrize(
    "vectors", [[[1.0, 2.0]], [1.0, 2.0, 3.0], [[1.0, 2.0, 3.0], [1.0]], [["a", "b", "c"]], [None], 5]
)
def test_vectors_of_the_wrong_shape_are_refused(vectors: object) -> None:
    with pytest.raises(DimensionMismatch, match="3"):
        validate_vectors(vectors, DIM)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_the_first_vector_that_is_not_finite_is_named(bad: float) -> None:
    vectors = _rows([1, 2, 3])
    vectors[1, 2] = bad
    with pytest.raises(NonFiniteVectors, match="row 1") as caught:
        validate_vectors(vectors, DIM)
    assert caught.value.context["row"] == 1


def test_a_number_too_large_for_the_storage_type_is_refused() -> None:
    vectors = _rows([1, 2])
    vectors[1, 0] = 70_000
    assert validate_vectors(vectors, DIM, "float32").dtype == np.float32
    with pytest.raises(NonFiniteVectors, match="row 1 holds 70000, which overflows float16"):
        validate_vectors(vectors, DIM, "float16")
