"""When a worker prunes its local caches, and what."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

from bedplate_workers.local_caches import local_caches

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


class Cache:
    """A cache directory under a clock of its own."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.now = NOW
        self.caches = local_caches(root, root / "segments", lambda: self.now)

    def add(self, path: str, used: datetime) -> Path:
        file = self.root / path
        file.parent.mkdir(parents=True)
        file.touch()
        for each in (file, file.parent):
            os.utime(each, (used.timestamp(), used.timestamp()))
        return file

    def prune_at(self, minutes: float) -> None:
        self.now = NOW + timedelta(minutes=minutes)
        self.caches.prune_if_due()


def test_segments_go_after_an_hour_and_checkpoints_after_a_day(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    old = cache.add("segments/segments/a/keys", NOW - timedelta(hours=2))
    recent = cache.add("segments/segments/b/keys", NOW)
    unused = cache.add("checkpoints/a/config.json", NOW - timedelta(days=2))
    used = cache.add("checkpoints/b/config.json", NOW - timedelta(hours=2))
    cache.prune_at(9)
    assert old.exists()
    cache.prune_at(10)
    assert [path.exists() for path in (old, recent, unused, used)] == [False, True, False, True]


def test_not_after_every_partition(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    cache.prune_at(10)
    old = cache.add("segments/segments/a/keys", NOW - timedelta(hours=2))
    cache.prune_at(19)
    assert old.exists()
    cache.prune_at(20)
    assert not old.exists()
