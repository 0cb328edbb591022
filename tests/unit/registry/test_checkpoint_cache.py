"""The cache of checkpoints: filled once, pruned by use."""

from __future__ import annotations

import hashlib
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from bedplate.wire.registry import FileManifest
from bedplate_registry.checkpoint_cache import CheckpointCache, CheckpointFile, prune_checkpoints

DATA = b"weights"
FILE = CheckpointFile(
    "checkpoints/x",
    FileManifest(name="config.json", sha256=hashlib.sha256(DATA).hexdigest(), bytes=len(DATA)),
)
DAY = timedelta(days=1)


class Blobs:
    """One object; counts how often it is fetched."""

    fetches = 0

    def get_file(self, key: str, path: Path, *, sha256: str | None = None) -> None:
        self.fetches += 1
        path.write_bytes(DATA)


@pytest.fixture
def blobs() -> Blobs:
    return Blobs()


@pytest.fixture
def cache(blobs: Blobs, tmp_path: Path) -> CheckpointCache:
    return CheckpointCache(blobs, tmp_path)


def age(folder: Path, used: datetime) -> None:
    os.utime(folder, (used.timestamp(), used.timestamp()))


def test_what_is_not_used_for_a_day_goes(cache: CheckpointCache, blobs: Blobs, tmp_path: Path) -> None:
    now = datetime.now(UTC)
    old, recent = (cache.fetch("core@1", digest, [FILE]) for digest in ("old", "recent"))
    age(old, now - 2 * DAY)
    age(recent, now - DAY / 2)
    assert prune_checkpoints(tmp_path, now - DAY) == 1
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["recent"]
    assert (cache.fetch("core@1", "old", [FILE]) / "config.json").read_bytes() == DATA
    assert blobs.fetches == 3


def test_a_fetch_is_a_use(cache: CheckpointCache, blobs: Blobs, tmp_path: Path) -> None:
    now = datetime.now(UTC)
    age(cache.fetch("core@1", "digest", [FILE]), now - 2 * DAY)
    cache.fetch("core@1", "digest", [FILE])
    assert prune_checkpoints(tmp_path, now - DAY) == 0
    assert blobs.fetches == 1


def test_what_is_loaded_counts_as_used(cache: CheckpointCache, tmp_path: Path) -> None:
    now = datetime.now(UTC)
    age(cache.fetch("core@1", "digest", [FILE]), now - 2 * DAY)
    assert prune_checkpoints(tmp_path, now - DAY, {"digest", "never-fetched"}) == 0
    assert prune_checkpoints(tmp_path, now - DAY) == 0, "by another process"


def test_what_killed_fetches_left_goes_too(cache: CheckpointCache, tmp_path: Path) -> None:
    now = datetime.now(UTC)
    left = tmp_path / "checkpoints" / ".digest.123.abc"
    left.mkdir(parents=True)
    (left / "config.json").touch()
    age(left, now - 2 * DAY)
    assert prune_checkpoints(tmp_path, now - DAY) == 1
    assert list((tmp_path / "checkpoints").iterdir()) == []


def test_nothing_to_prune(tmp_path: Path) -> None:
    assert prune_checkpoints(tmp_path, datetime.now(UTC)) == 0
