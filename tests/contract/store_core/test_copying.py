"""Copies of a bucket, between whatever adapters."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bedplate_store.copying import Copied, copy_missing
from bedplate_store.objects import LocalObjectStore, MemoryObjectStore

OBJECTS = {"segments/a/manifest.json": b"{}", "segments/a/vectors": b"v" * 1000, "log/feed/b.arrow": b"row"}


def contents(store: Any) -> dict[str, bytes]:
    return {key: store.get(key) for key in store.list("")}


def test_a_copy_has_every_object_and_the_next_one_only_what_came_since(objects: Any, tmp_path: Path) -> None:
    for key, data in OBJECTS.items():
        objects.put(key, data)
    target = LocalObjectStore(tmp_path / "target")
    target.put("segments/a/vectors", b"half of it")
    assert copy_missing(objects, target) == Copied(3, 1005, 0, 0)
    assert contents(target) == OBJECTS
    objects.put("segments/c/vectors", b"new")
    assert copy_missing(objects, target) == Copied(1, 3, 3, 0)
    restored = MemoryObjectStore()
    copy_missing(target, restored)
    assert contents(restored) == contents(objects)


class CollectedMeanwhile(MemoryObjectStore):
    """Lists an object that is gone when it is asked for, as a collection beside the copy does it."""

    def list(self, prefix: str) -> Iterator[str]:
        yield "segments/gone/vectors"
        yield from super().list(prefix)


def test_what_is_deleted_meanwhile_is_counted_and_ends_nothing() -> None:
    source, target = CollectedMeanwhile(), MemoryObjectStore()
    source.put("segments/a/vectors", b"here")
    assert copy_missing(source, target) == Copied(1, 4, 0, 1)
    assert contents(target) == {"segments/a/vectors": b"here"}


@pytest.mark.parametrize(
    ("target", "status", "told"),
    [
        ("file://{folder}/target", 0, "1 objects copied (3 bytes), 0 were there, 0 were deleted meanwhile"),
        ("ftp://host/target", 1, "names no object store: write it as file:///path"),
    ],
)
def test_the_command_tells_what_it_did(tmp_path: Path, target: str, status: int, told: str) -> None:
    LocalObjectStore(tmp_path / "source").put("a", b"abc")
    urls = (f"file://{tmp_path / 'source'}", target.format(folder=tmp_path))
    done = subprocess.run(
        [sys.executable, "-m", "bedplate_store.copying", *urls], capture_output=True, text=True
    )
    assert done.returncode == status
    assert told in done.stdout + done.stderr


def test_the_help_has_an_example() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "bedplate_store.copying", "--help"], capture_output=True, text=True, check=True
    )
    assert "example:" in done.stdout
