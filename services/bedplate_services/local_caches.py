"""Copies of remote objects on this machine, which would only grow if nobody pruned them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from starlette.concurrency import run_in_threadpool

from bedplate_registry.checkpoint_cache import prune_checkpoints
from bedplate_services.logging import get_logger
from bedplate_store.readers import SpaceReaders

PRUNE_SECONDS = 600.0
SEGMENTS_UNUSED = timedelta(hours=1)
CHECKPOINTS_UNUSED = timedelta(days=1)
_log = get_logger(__name__)


@dataclass(frozen=True)
class LocalCaches:
    """The caches below ``cache_dir``, which other processes of this machine may share.

    Attributes:
        readers: what they have open stays, however old.
        loaded: the digests of the checkpoints this process has in memory, which count as used.
    """

    readers: SpaceReaders
    cache_dir: Path
    now: Callable[[], datetime]
    loaded: Callable[[], Collection[str]] = tuple

    def prune(self) -> None:
        """Remove segments and indexes not used for an hour and checkpoints not used for a day."""
        now = self.now()
        files = self.readers.prune_cache(now - SEGMENTS_UNUSED)
        checkpoints = prune_checkpoints(self.cache_dir, now - CHECKPOINTS_UNUSED, self.loaded())
        if files or checkpoints:
            _log.info("pruned the local caches", files=files, checkpoints=checkpoints)

    async def keep_pruned(self, sleep: Callable[[float], Awaitable[object]] = asyncio.sleep) -> None:
        """Prune every ten minutes until cancelled."""
        while True:
            await sleep(PRUNE_SECONDS)
            try:
                await run_in_threadpool(self.prune)
            except Exception as error:  # noqa: BLE001  # one bad file must not end the loop
                _log.warning("the local caches cannot be pruned", exc_info=error)
