"""What a service prunes of its copies of remote objects."""

from __future__ import annotations

from collections.abc import Callable, Collection
from datetime import datetime
from pathlib import Path

from bedplate_registry.checkpoint_cache import CHECKPOINTS_UNUSED, prune_checkpoints
from bedplate_store.local_caches import SEGMENTS_UNUSED, LocalCache, LocalCaches
from bedplate_store.readers import SpaceReaders


def local_caches(
    readers: SpaceReaders,
    cache_dir: Path,
    now: Callable[[], datetime],
    loaded: Callable[[], Collection[str]] = tuple,
) -> LocalCaches:
    """The caches below ``cache_dir``.

    Args:
        readers: what they have open stays, however old.
        loaded: the digests of the checkpoints this process has in memory, which count as used.
    """

    def prune_unloaded(before: datetime) -> int:
        return prune_checkpoints(cache_dir, before, loaded())

    return LocalCaches(
        [
            LocalCache("segments and indexes", SEGMENTS_UNUSED, readers.prune_cache),
            LocalCache("checkpoints", CHECKPOINTS_UNUSED, prune_unloaded),
        ],
        now,
    )
