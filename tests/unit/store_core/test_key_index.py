"""The key index finds exactly what a search in the sorted keys finds."""

from pathlib import Path

import numpy as np
import pytest

from bedplate_store import key_index
from bedplate_store.key_index import KeyIndex, as_table, fill, index_bytes, wants_index
from bedplate_store.merging import merge_segments
from bedplate_store.objects import MemoryObjectStore
from bedplate_store.segments import open_segment, segment_is_whole, write_segment

RANDOM = np.random.default_rng(0)
SETS = {
    "gaps": np.cumsum(RANDOM.integers(1, 1000, 5000)),
    "anywhere": np.unique(RANDOM.integers(-(2**63), 2**63 - 1, 5000)),
    "extremes": np.array([-(2**63), -1, 0, 1, 2**63 - 1]),
    "clusters": np.unique((RANDOM.integers(0, 9, 5000) << 50) + RANDOM.integers(0, 20_000, 5000)),
    "high bits only": np.arange(1000) << 48,  # fingerprints collide
    "one": np.array([7]),
}


def _index(keys: np.ndarray) -> KeyIndex:
    data = np.empty(index_bytes(len(keys)), np.uint8)
    fill(as_table(data), keys)
    return KeyIndex(as_table(data), keys)


@pytest.mark.parametrize("name", SETS)
def test_it_finds_what_is_there_and_nothing_else(name: str) -> None:
    keys = SETS[name]
    index = _index(keys)
    assert (index.find(keys) == np.arange(len(keys))).all()
    others = np.setdiff1d(np.concatenate([keys[1:] - 1, keys[:-1] + 1, RANDOM.integers(0, 99, 50)]), keys)
    assert (index.find(others) == -1).all()
    mixed = np.concatenate([others[:3], keys[-2:], others[-3:], keys[-1:]])
    expected = np.where(np.isin(mixed, keys), np.searchsorted(keys, mixed), -1)
    assert (index.find(mixed) == expected).all()
    assert index.find(np.empty(0, np.int64)).tolist() == []


def test_keys_that_find_their_bucket_full_are_found_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(key_index, "ROWS_PER_BUCKET", 30)
    keys = SETS["gaps"]
    index = _index(keys)
    assert (index.find(keys) == np.arange(len(keys))).all()
    assert (index.find(np.setdiff1d(keys + 1, keys)) == -1).all()


def test_it_does_not_depend_on_the_pieces_it_is_made_in(monkeypatch: pytest.MonkeyPatch) -> None:
    keys = SETS["gaps"]
    tables = []
    for pieces in (1 << 18, 700, 1):
        monkeypatch.setattr(key_index, "_KEYS_AT_ONCE", pieces)
        table = as_table(np.empty(index_bytes(len(keys)), np.uint8))
        fill(table, keys)
        tables.append(table)
    assert (tables[0] == tables[1]).all()
    assert (tables[0] == tables[2]).all()


def test_only_many_keys_with_gaps_have_one() -> None:
    many = np.arange(key_index.INDEXED_FROM_ROWS)
    assert not wants_index(many)
    assert not wants_index(SETS["gaps"])
    assert wants_index(many * 2)


def test_a_segment_written_or_merged_has_it_and_finds_by_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(key_index, "INDEXED_FROM_ROWS", 100)
    objects = MemoryObjectStore()
    keys, vectors = np.arange(300) * 7, np.arange(900, dtype=np.float32).reshape(300, 3)

    def written(chosen: slice) -> str:
        return write_segment(
            objects, keys=keys[chosen], vectors=vectors[chosen], dtype="float32", key_type="int64"
        ).digest

    whole = written(slice(None))
    merged = merge_segments(objects, tmp_path, [written(slice(0, None, 2)), written(slice(1, None, 2))])
    assert merged.digest == whole  # the streamed index is byte for byte the one made at once
    assert objects.size(f"segments/{whole}/key_index") == index_bytes(300)
    segment = open_segment(objects, whole, tmp_path)
    monkeypatch.setattr(np, "searchsorted", None)  # it is the index that finds
    assert (segment.find(np.array([14, 15, 0, 2093])) == [2, -1, 0, 299]).all()
    objects.delete(f"segments/{whole}/key_index")
    assert not segment_is_whole(objects, segment.info)
