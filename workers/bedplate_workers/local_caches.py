"""Copies of remote objects on this machine, which would only grow if nobody pruned them."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

from bedplate_registry.checkpoint_cache import prune_checkpoints
from bedplate_store.mapping import prune_cache
from bedplate_workers.clocks import Clock
from bedplate_workers.logging import get_logger

PRUNE_EVERY = timedelta(minutes=10)
SEGMENTS_UNUSED = timedelta(hours=1)
CHECKPOINTS_UNUSED = timedelta(days=1)
_log = get_logger(__name__)


class LocalCaches:
    """The caches below ``cache_dir``, which other processes of this machine may share.

    Args:
        segments_dir: where segments, indexes and half-built files lie.
    """

    def __init__(self, cache_dir: Path, segments_dir: Path, now: Clock) -> None:
        self._cache_dir = cache_dir
        self._segments_dir = segments_dir
        self._now = now
        self._pruned_at = now()

    def prune_if_due(self) -> None:
        """Every ten minutes: remove segments not used for an hour and checkpoints not used for a day.

        To be called between jobs, when no file is in use. What cannot be removed is logged: work goes on.
        """
        now = self._now()
        if now - self._pruned_at < PRUNE_EVERY:
            return
        self._pruned_at = now
        try:
            files = prune_cache(self._segments_dir, (), now - SEGMENTS_UNUSED)
            checkpoints = prune_checkpoints(self._cache_dir, now - CHECKPOINTS_UNUSED)
        except OSError as error:
            _log.warning("the local caches cannot be pruned", exc_info=error)
            return
        if files or checkpoints:
            _log.info("pruned the local caches", files=files, checkpoints=checkpoints)
