"""The key index finds exactly what a search in the sorted keys finds."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bedplate_store import key_index, key_index_building
from bedplate_store.key_index import MULTIPLIER, UNPLACED, KeyIndex, Layout, wants_index
from bedplate_store.key_index_building import index_of
from bedplate_store.merging import merge_segments
from bedplate_store.objects import MemoryObjectStore
from bedplate_store.segments import open_segment, segment_is_whole, write_segment

RANDOM = np.random.default_rng(0)
INT64 = st.integers(-(2**63), 2**63 - 1)


def _colliding(count: int) -> np.ndarray:
    """Keys whose hashes are 0, 1, 2 ...: all of them in one bucket, and in one place of its window."""
    inverse = np.uint64(pow(int(MULTIPLIER), -1, 2**64))
    return np.sort((np.arange(count, dtype=np.uint64) * inverse).view(np.int64))


SETS = {
    "gaps": np.cumsum(RANDOM.integers(1, 1000, 5000)),
    "anywhere": np.unique(RANDOM.integers(-(2**63), 2**63 - 1, 5000)),
    "extremes": np.array([-(2**63), -1, 0, 1, 2**63 - 1]),
    "clusters": np.unique((RANDOM.integers(0, 9, 5000) << 50) + RANDOM.integers(0, 20_000, 5000)),
    "high bits only": np.arange(1000) << 48,
    "chosen to collide": _colliding(3000),
    "some chosen to collide": np.unique(np.concatenate([_colliding(9), RANDOM.integers(-999, 999, 500)])),
    "one": np.array([7]),
    "several parts": np.cumsum(RANDOM.integers(1, 1000, 350_000)),
}


def _index(keys: np.ndarray) -> KeyIndex:
    return KeyIndex(index_of(keys), keys)


def _by_search(keys: np.ndarray, asked: np.ndarray) -> np.ndarray:
    places = np.minimum(np.searchsorted(keys, asked), len(keys) - 1)
    return np.where(keys[places] == asked, places, -1)


@pytest.mark.parametrize("name", SETS)
def test_it_finds_what_is_there_and_nothing_else(name: str) -> None:
    keys = SETS[name]
    index = _index(keys)
    assert (index.find(keys) == np.arange(len(keys))).all()
    near = np.concatenate([keys[1:] - 1, keys[:-1] + 1, RANDOM.integers(0, 99, 50)])
    others = near[_by_search(keys, near) == -1]
    assert (index.find(others) == -1).all()
    mixed = np.concatenate([others[:3], keys[-2:], others[-3:], keys[-1:], keys[-1:]])
    assert (index.find(mixed) == _by_search(keys, mixed)).all()
    assert index.find(np.empty(0, np.int64)).tolist() == []


@settings(deadline=None, max_examples=50)
@given(st.sets(INT64, min_size=1, max_size=300), st.lists(INT64, max_size=50))
def test_any_keys_are_found_as_a_search_finds_them(present: set[int], others: list[int]) -> None:
    keys = np.array(sorted(present), np.int64)
    asked = np.concatenate([keys, np.array(others, np.int64), keys[::-1]])
    assert (_index(keys).find(asked) == _by_search(keys, asked)).all()


@pytest.mark.parametrize("tries", [0, 1])
def test_keys_that_got_no_slot_are_found_all_the_same(tries: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(key_index_building, "_TRIES", tries)
    keys = SETS["gaps"]
    data = index_of(keys)
    unplaced = (Layout.of(len(keys)).displacements(data) == UNPLACED).sum()
    assert unplaced > 10
    index = KeyIndex(data, keys)
    assert (index.find(keys) == np.arange(len(keys))).all()
    assert (index.find(np.setdiff1d(keys + 1, keys)) == -1).all()


def test_nearly_all_keys_get_a_slot() -> None:
    for name in ("gaps", "anywhere", "clusters", "several parts"):
        layout = Layout.of(len(SETS[name]))
        displacements = layout.displacements(index_of(SETS[name]))
        assert (displacements == UNPLACED).mean() < 0.001, name


def test_it_does_not_depend_on_the_pieces_it_is_made_in(monkeypatch: pytest.MonkeyPatch) -> None:
    keys = SETS["several parts"]
    assert Layout.of(len(keys)).parts == 2
    whole = index_of(keys)
    monkeypatch.setattr(key_index_building, "_KEYS_AT_ONCE", 70_001)
    monkeypatch.setattr(key_index_building, "_KEYS_PER_PASS", 200_000)
    assert (index_of(keys) == whole).all()


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
    assert objects.size(f"segments/{whole}/key_hash") == Layout.of(300).bytes
    segment = open_segment(objects, whole, tmp_path)
    monkeypatch.setattr(np, "searchsorted", None)  # it is the index that finds
    assert (segment.find(np.array([14, 15, 0, 2093])) == [2, -1, 0, 299]).all()
    objects.delete(f"segments/{whole}/key_hash")
    assert not segment_is_whole(objects, segment.info)
