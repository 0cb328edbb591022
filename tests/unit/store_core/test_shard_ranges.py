"""Cutting rows and keys into shards."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bedplate_store.indexes import IndexDocument
from bedplate_store.indexes.sharded import with_shards
from bedplate_store.keys import parse_keys, to_python
from bedplate_store.objects import MemoryObjectStore
from bedplate_store.segment_parts import cut, rows_of
from bedplate_store.segments import Segment, open_segment, write_segment
from bedplate_store.shard_hits import merged, without_own
from bedplate_store.shard_ranges import ShardRanges


@given(st.integers(0, 10_000), st.integers(1, 64))
def test_shards_are_even_and_cover_every_row_once(rows: int, shards: int) -> None:
    spans = cut(rows, shards)
    assert (spans[0].start, spans[-1].stop) == (0, rows)
    assert all(before.stop == after.start for before, after in pairwise(spans))
    assert max(map(len, spans)) - min(map(len, spans)) <= 1
    assert len(spans) == max(1, min(rows, shards))


def segment_of(objects: MemoryObjectStore, keys: Any, tmp_path: Any, tombstones: Any = None) -> Segment:
    key_type = "string" if keys and isinstance(keys[0], str) else "int64"
    info = write_segment(
        objects,
        keys=keys,
        vectors=np.arange(len(keys), dtype=np.float32)[:, None],
        dtype="float32",
        key_type=key_type,
        tombstones=tombstones,
    )
    return open_segment(objects, info.digest, tmp_path)


@pytest.mark.parametrize("keys", [[-7, 0, 5, 6, 100, 2**62], ["B", "a", "zz", "é", "日本", "日本語"]])
def test_every_key_belongs_where_its_row_lies_and_others_between(keys: list[Any], tmp_path: Any) -> None:
    segment = segment_of(MemoryObjectStore(), keys, tmp_path)
    document = with_shards(IndexDocument.flat(6), segment, [("", 0)] * 3)
    document = IndexDocument.from_json(document.to_json())
    ranges = ShardRanges.of(document.shards)
    assert ranges.shard_of(segment.keys).tolist() == [0, 0, 1, 1, 2, 2]
    numbers, texts = [-8, 4, 99, 101, 2**63 - 1], ["A", "y", "zzz", "日本 ", "日本語x"]
    between: list[Any] = numbers if isinstance(keys[0], int) else texts
    expected = [0, 0, 1, 2, 2]
    key_type = "int64" if isinstance(keys[0], int) else "string"
    assert ranges.shard_of(parse_keys(between, key_type)).tolist() == expected
    for number, shard in enumerate(document.shards):
        part = rows_of(segment, shard.start, shard.stop)
        assert to_python(part.keys) == keys[2 * number : 2 * number + 2]
        assert part.find(segment.keys).tolist() == [-1, -1] * number + [0, 1] + [-1, -1] * (2 - number)
        assert part.vectors.ravel().tolist() == part.scan.ravel().tolist() == [2 * number, 2 * number + 1]


def test_the_parts_of_a_write_are_the_write(tmp_path: Any) -> None:
    write = segment_of(MemoryObjectStore(), [1, 12, 13, 40], tmp_path, tombstones=[2, 41])
    ranges = ShardRanges((10, 20, 30))
    parts = [ranges.part_of(write, shard) for shard in range(4)]
    assert parts[2] is None
    listed = [part and (to_python(part.keys), to_python(part.tombstones)) for part in parts]
    assert listed == [([1], [2]), ([12, 13], []), None, ([40], [41])]
    assert parts[1] is not None
    assert parts[1].vectors.ravel().tolist() == [1.0, 2.0]
    assert ShardRanges(()).part_of(write, 0) is write


def test_hits_are_merged_best_first_and_equal_ones_by_key() -> None:
    one = (np.array([[5, 9, -1]]), np.array([[3.0, 1.0, -np.inf]], np.float32))
    other = (np.array([[2, 7, 8]]), np.array([[3.0, 2.0, 1.0]], np.float32))
    for order in ([one, other], [other, one]):
        keys, scores = merged(order, 4)
        assert np.asarray(keys).tolist() == [[2, 5, 7, 8]]
        assert scores.tolist() == [[3.0, 3.0, 2.0, 1.0]]
    texts = [([["b", None]], np.array([[1.0, -np.inf]], np.float32)), ([["a"]], np.ones((1, 1), np.float32))]
    assert merged(texts, 3)[0] == [["a", "b", None]]


def test_a_query_key_is_left_out_of_its_own_hits() -> None:
    keys, scores = without_own(
        np.array([[4, 1, 2], [3, 4, -1]]),
        np.array([[9, 8, 7], [6, 5, -np.inf]], np.float32),
        [1, 4],
        2,
    )
    assert np.asarray(keys).tolist() == [[4, 2], [3, -1]]
    assert scores.tolist() == [[9.0, 7.0], [6.0, -np.inf]]
    assert without_own([["x", "y"]], np.ones((1, 2), np.float32), ["y"], 1)[0] == [["x"]]
