"""Polls of the registry that requests ask for: shared, and never more than a few a second."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

from starlette.concurrency import run_in_threadpool

POLL_PAUSE_SECONDS = 0.2


class SharedPolls:
    """Requests that miss a model wait for one poll together, so that asking for nonsense, however often,
    costs the registry at most five polls a second, one at a time.

    A request is never answered from a poll that began before it came: what was promoted before it, it sees.

    Args:
        poll: blocking.
    """

    def __init__(
        self,
        poll: Callable[[], None],
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self._poll = poll
        self._clock = clock
        self._sleep = sleep
        self._began_at = -POLL_PAUSE_SECONDS
        self._last: asyncio.Task[None] | None = None
        self._next: asyncio.Task[None] | None = None

    async def poll(self) -> None:
        """Return after a poll that began after this call. Raises what the poll raises."""
        if self._next is None or self._next.done():
            self._next = self._last = asyncio.create_task(self._poll_after(self._last))
        # Of many who wait, one may go away.
        await asyncio.shield(self._next)

    async def _poll_after(self, last: asyncio.Task[None] | None) -> None:
        if last is not None and not last.done():
            await asyncio.wait([last])
        pause = self._began_at + POLL_PAUSE_SECONDS - self._clock()
        if pause > 0:
            await self._sleep(pause)
        self._began_at = self._clock()
        self._next = None  # who comes from now on waits for another one
        await run_in_threadpool(self._poll)
