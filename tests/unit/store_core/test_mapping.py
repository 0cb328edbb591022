"""Files of objects on this machine: what is checked when, and what a wrong one leads to."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from bedplate.errors import NotFound, ObjectDamaged
from bedplate_store import mapping
from bedplate_store.objects import LocalObjectStore, MemoryObjectStore, ObjectStore

KEY = "segments/x/vectors"
DATA = bytes(range(256)) * 16
DIGEST = hashlib.sha256(DATA).hexdigest()


def fetch(objects: ObjectStore, cache: Path) -> Path:
    return mapping.local_file(objects, KEY, cache, bytes_=len(DATA), sha256=DIGEST)


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[100] ^= 1
    path.write_bytes(data)


@pytest.fixture
def remote() -> ObjectStore:
    objects = MemoryObjectStore()
    objects.put(KEY, DATA)
    return objects


def test_a_file_is_fetched_once(remote: ObjectStore, tmp_path: Path) -> None:
    path = fetch(remote, tmp_path)
    assert path.read_bytes() == DATA
    remote.delete(KEY)
    assert fetch(remote, tmp_path) == path


@pytest.mark.parametrize("spoil", [flip, lambda path: path.write_bytes(DATA[:7])])
def test_a_wrong_cached_file_is_fetched_again(
    spoil: object, remote: ObjectStore, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert callable(spoil)
    path = fetch(remote, tmp_path)
    spoil(path)
    assert fetch(remote, tmp_path).read_bytes() == DATA
    assert "fetching it again" in caplog.text


def test_what_comes_wrong_is_not_kept(remote: ObjectStore, tmp_path: Path) -> None:
    remote.put(KEY, DATA[::-1])
    with pytest.raises(ObjectDamaged, match=r"segments/x/vectors.*Restore it from a copy"):
        fetch(remote, tmp_path)
    remote.delete(KEY)
    with pytest.raises(NotFound):
        fetch(remote, tmp_path)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize("spoil", [flip, lambda path: path.write_bytes(DATA[:7])])
def test_a_wrong_object_in_place_is_told(spoil: object, tmp_path: Path) -> None:
    assert callable(spoil)
    objects = LocalObjectStore(tmp_path / "objects")
    objects.put(KEY, DATA)
    path = fetch(objects, tmp_path / "cache")
    spoil(path)
    with pytest.raises(ObjectDamaged, match="Restore it from a copy"):
        fetch(objects, tmp_path / "cache")


def test_large_files_are_opened_by_size_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What docs/faults.md says is not noticed by opening; the scrub finds it."""
    monkeypatch.setattr(mapping, "VERIFIED_AT_OPEN_BYTES", len(DATA) - 1)
    objects = LocalObjectStore(tmp_path / "objects")
    objects.put(KEY, DATA)
    flip(fetch(objects, tmp_path / "cache"))
    fetch(objects, tmp_path / "cache")
