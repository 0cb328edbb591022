"""What a worker prunes of its copies of remote objects."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from bedplate_registry.checkpoint_cache import CHECKPOINTS_UNUSED, prune_checkpoints
from bedplate_store.local_caches import SEGMENTS_UNUSED, LocalCache, LocalCaches
from bedplate_store.mapping import prune_cache
from bedplate_workers.clocks import Clock


def local_caches(cache_dir: Path, segments_dir: Path, now: Clock) -> LocalCaches:
    """The caches below ``cache_dir``; ``segments_dir``: where segments, indexes and half-built files lie."""
    return LocalCaches(
        [
            LocalCache("segments and indexes", SEGMENTS_UNUSED, partial(prune_cache, segments_dir, ())),
            LocalCache("checkpoints", CHECKPOINTS_UNUSED, partial(prune_checkpoints, cache_dir)),
        ],
        now,
    )
