"""Copies of remote objects on this machine, which would only grow if nobody pruned them.

The one place that says when: services prune beside what they serve, workers between jobs.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

logger = logging.getLogger(__name__)

PRUNE_EVERY = timedelta(minutes=10)
SEGMENTS_UNUSED = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class LocalCache:
    """One of the caches.

    Attributes:
        holds: what is in it, for the log.
        unused: how long something stays that nobody uses.
        prune: removes what was last used before the given time, and returns how much went.
    """

    holds: str
    unused: timedelta
    prune: Callable[[datetime], int]


class LocalCaches:
    """The caches of a process, which other processes of this machine may share."""

    def __init__(self, caches: Sequence[LocalCache], now: Callable[[], datetime]) -> None:
        self._caches = caches
        self._now = now
        self._pruned_at = now()

    def prune(self) -> None:
        """Remove what was not used for long. What cannot be removed is logged, and stays until next time."""
        now = self._pruned_at = self._now()
        for cache in self._caches:
            try:
                removed = cache.prune(now - cache.unused)
            except OSError:
                logger.exception("the local cache of %s cannot be pruned", cache.holds)
                continue
            if removed:
                logger.info("pruned the local cache of %s: %d removed", cache.holds, removed)

    def prune_if_due(self) -> None:
        """Prune if that was ten minutes ago. Where files may be in use, ``prune`` must know which."""
        if self._now() - self._pruned_at >= PRUNE_EVERY:
            self.prune()

    async def keep_pruned(self, sleep: Callable[[float], Awaitable[object]] = asyncio.sleep) -> None:
        """Prune every ten minutes, in another thread, until cancelled."""
        while True:
            await sleep(PRUNE_EVERY.total_seconds())
            await asyncio.to_thread(self.prune)
