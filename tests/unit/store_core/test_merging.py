"""Merging: as a dictionary would be updated, and byte for byte what merging in memory gives."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bedplate.errors import InvalidRequest
from bedplate.wire.registry import KeyType
from bedplate_store.column_writers import column_writer
from bedplate_store.key_runs import common_ranges, slice_keys
from bedplate_store.keys import (
    KEY_BYTES_MAX,
    build_column,
    concatenate,
    parse_keys,
    sort_last_wins,
    take,
    to_python,
)
from bedplate_store.merging import merge_segments
from bedplate_store.objects import LocalObjectStore, MemoryObjectStore, ObjectStore
from bedplate_store.segment_files import column_bytes, file_info
from bedplate_store.segments import SegmentInfo, open_segment, write_segment

DIM = 3
EACH = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


def merge_in_memory(objects: ObjectStore, cache_dir: Path, digests: Sequence[str]) -> SegmentInfo:
    """What :func:`merge_segments` does, for readers: all keys at once."""
    segments = [open_segment(objects, digest, cache_dir) for digest in digests]
    info = segments[0].info
    columns = [keys for each in segments for keys in (each.keys, each.tombstones)]
    keys = concatenate(columns, info.key_type)
    nothing = np.zeros((0, DIM), info.dtype)
    vectors = np.concatenate([nothing, *(each.vectors for each in segments)])
    row_of: list[int] = []
    for first, each in zip(
        np.cumsum([0, *(len(each.keys) for each in segments)]).tolist(), segments, strict=False
    ):
        row_of += [*range(first, first + len(each.keys)), *([-1] * len(each.tombstones))]
    rows = np.array(row_of, np.int64)
    newest = sort_last_wins(keys)
    newest = newest[rows[newest] >= 0]
    return write_segment(
        objects,
        keys=to_python(take(keys, newest)),
        vectors=vectors[rows[newest]],
        dtype=info.dtype,
        key_type=info.key_type,
    )


def _write(objects: ObjectStore, key_type: KeyType, rows: dict[Any, float], gone: set[Any]) -> str:
    return write_segment(
        objects,
        keys=list(rows),
        vectors=np.array([[value] * DIM for value in rows.values()], np.float32).reshape(-1, DIM),
        tombstones=sorted(gone - rows.keys()),
        dtype="float16",
        key_type=key_type,
    ).digest


KEYS = {
    "int64": st.one_of(st.integers(-3, 12), st.integers(-(2**63), 2**63 - 1)),
    "string": st.one_of(
        st.sampled_from([*"abcdé", "aa", "ab", "a\0", "a\0b"]), st.text(min_size=1, max_size=5)
    ),
}
WRITES = {
    key_type: st.lists(
        st.tuples(st.dictionaries(keys, st.integers(-50, 50), max_size=12), st.sets(keys, max_size=4)),
        min_size=1,
        max_size=6,
    )
    for key_type, keys in KEYS.items()
}


@pytest.mark.parametrize("key_type", ["int64", "string"])
@given(data=st.data(), keys_at_once=st.integers(1, 9))
@EACH
def test_merging_equals_updating_a_dictionary(
    key_type: KeyType, data: st.DataObject, keys_at_once: int, tmp_path: Path
) -> None:
    objects = MemoryObjectStore()
    model: dict[Any, float] = {}
    digests = []
    for rows, deleted in data.draw(WRITES[key_type]):
        model.update(rows)
        for key in deleted - rows.keys():
            model.pop(key, None)
        digests.append(_write(objects, key_type, rows, deleted))
    merged = merge_segments(objects, tmp_path, digests, keys_at_once=keys_at_once)
    opened = open_segment(objects, merged.digest, tmp_path)
    found = dict(zip(to_python(opened.keys), opened.vectors[:, 0].astype(int).tolist(), strict=True))
    assert found == model
    assert merged.tombstones == 0
    assert merged == merge_in_memory(objects, tmp_path, digests)
    # One step after the other gives the same bytes as all at once.
    halfway = merge_segments(objects, tmp_path, digests[:1]).digest
    for digest in digests[1:]:
        halfway = merge_segments(objects, tmp_path, [halfway, digest]).digest
    assert open_segment(objects, halfway, tmp_path).info == merged


@pytest.mark.parametrize("key_type", ["int64", "string"])
@given(data=st.data(), keys_at_once=st.integers(1, 20))
@EACH
def test_ranges_hold_every_key_once_and_no_more_than_they_may(
    key_type: KeyType, data: st.DataObject, keys_at_once: int
) -> None:
    drawn = data.draw(st.lists(st.sets(KEYS[key_type], max_size=25), max_size=5))
    runs = [take(keys, sort_last_wins(keys)) for keys in (parse_keys(list(run), key_type) for run in drawn)]
    seen: list[list[Any]] = [[] for _ in runs]
    before: list[Any] = []
    for stretches in common_ranges(runs, keys_at_once):
        assert [each.run for each in stretches] == sorted({each.run for each in stretches})
        assert sum(len(each) for each in stretches) <= max(keys_at_once, len(runs))
        keys = [to_python(slice_keys(runs[each.run], each.start, each.end)) for each in stretches]
        together = sorted({key for part in keys for key in part}, key=_order)
        assert together
        assert not before or _order(before[-1]) < _order(together[0])
        before = together
        for each, part in zip(stretches, keys, strict=True):
            seen[each.run] += part
    assert seen == [to_python(run) for run in runs]


def _order(key: Any) -> Any:
    return key.encode() if isinstance(key, str) else key


def test_runs_that_do_not_overlap_are_copied_in_blocks() -> None:
    """As the partitions of an embedding: no range mixes two of them, and none is smaller than it must be."""
    runs = [np.arange(start, start + 100) for start in range(0, 5000, 100)]
    ranges = list(common_ranges(runs, 60))
    assert [[(each.start, each.end) for each in stretches] for stretches in ranges] == 50 * [
        [(0, 60)],
        [(60, 100)],
    ]


@pytest.mark.parametrize("hashes_wait", ["in memory", "in files"])
@pytest.mark.parametrize("step", [1, 7, 1000])
@pytest.mark.parametrize("key_type", ["int64", "string"])
def test_a_column_written_in_pieces_is_the_column(
    key_type: KeyType, step: int, hashes_wait: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if hashes_wait == "in files":
        monkeypatch.setattr("bedplate_store.column_writers._BUCKET_BYTES_IN_MEMORY", 1)
    random = np.random.default_rng(3)
    numbers = random.integers(-(2**63), 2**63 - 1, 500)
    raw: Any = numbers if key_type == "int64" else [*(f"é{n}" for n in numbers), "x" * KEY_BYTES_MAX]
    keys = parse_keys(raw, key_type)
    keys = take(keys, sort_last_wins(keys))
    with column_writer(tmp_path / "keys", key_type) as writer:
        for start in range(0, len(keys), step):
            writer.append(slice_keys(keys, start, min(start + step, len(keys))))
        info = writer.finish()
    whole = column_bytes(build_column(keys))
    assert (tmp_path / "keys").read_bytes() == whole
    assert info == file_info(whole)


def test_vectors_are_streamed_in_chunks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bedplate_store.merging._VECTOR_BYTES_AT_ONCE", 1)
    objects = LocalObjectStore(tmp_path / "objects")
    odd = {key: float(key) for key in range(1, 20, 2)}
    even = {key: float(key) for key in range(0, 40, 2)}
    digests = [_write(objects, "int64", rows, set()) for rows in (odd, even)]
    merged = open_segment(objects, merge_segments(objects, tmp_path, digests).digest, tmp_path)
    assert merged.vectors[:, 0].tolist() == [*range(20), *range(20, 40, 2)]
    assert not any((tmp_path / "building").iterdir())


def test_a_merge_that_fails_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    objects = LocalObjectStore(tmp_path / "objects")
    digests = [_write(objects, "string", {str(key): 1.0}, set()) for key in range(2)]
    before = sorted(objects.list(""))

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(objects, "put_file", full)
    with pytest.raises(OSError, match="No space"):
        merge_segments(objects, tmp_path, digests)
    assert sorted(objects.list("")) == before
    assert not any((tmp_path / "building").iterdir())


def test_unlike_segments_do_not_merge(tmp_path: Path) -> None:
    objects = MemoryObjectStore()
    digests = [
        write_segment(objects, keys=[1], vectors=np.ones((1, DIM)), dtype=dtype, key_type="int64").digest
        for dtype in ("float16", "float32")
    ]
    with pytest.raises(InvalidRequest, match="alike"):
        merge_segments(objects, tmp_path, digests)
    with pytest.raises(InvalidRequest):
        merge_segments(objects, tmp_path, [])
