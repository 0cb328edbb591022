"""When the services prune their local caches, and what."""

from __future__ import annotations

import asyncio
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from bedplate_services.local_caches import local_caches

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


class Readers:
    """Remembers what it is asked to prune; the first time fails."""

    def __init__(self) -> None:
        self.asked: list[datetime] = []

    def prune_cache(self, before: datetime) -> int:
        self.asked.append(before)
        if len(self.asked) == 1:
            raise PermissionError("somebody else's file")
        return 0


def checkpoint(cache_dir: Path, name: str, used: datetime) -> None:
    folder = cache_dir / "checkpoints" / name
    folder.mkdir(parents=True)
    os.utime(folder, (used.timestamp(), used.timestamp()))


def test_every_ten_minutes_even_after_an_error(tmp_path: Path) -> None:
    readers: Any = Readers()
    now = NOW
    checkpoint(tmp_path, "old", NOW - timedelta(hours=25))
    checkpoint(tmp_path, "recent", NOW - timedelta(hours=23))
    checkpoint(tmp_path, "loaded", NOW - timedelta(hours=25))
    caches = local_caches(readers, tmp_path, lambda: now, lambda: ["loaded"])

    async def sleep(seconds: float) -> None:
        nonlocal now
        now += timedelta(seconds=seconds)
        if now - NOW > timedelta(minutes=25):
            raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(caches.keep_pruned(sleep))
    hour = timedelta(hours=1)
    assert readers.asked == [NOW + timedelta(minutes=minutes) - hour for minutes in (10, 20)]
    assert {path.name for path in (tmp_path / "checkpoints").iterdir()} == {"recent", "loaded"}
