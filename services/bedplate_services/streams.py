"""Long answers: made a chunk ahead in a thread, sent at the client's pace."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence

from starlette.concurrency import run_in_threadpool

Chunk = bytes | memoryview


async def ahead(chunks: Iterator[Sequence[Chunk]]) -> AsyncIterator[Chunk]:
    """The chunks of each list, the next list being made meanwhile; so two lists at most are in memory."""
    upcoming = asyncio.create_task(run_in_threadpool(next, chunks, None))
    try:
        while (parts := await upcoming) is not None:
            upcoming = asyncio.create_task(run_in_threadpool(next, chunks, None))
            for part in parts:
                yield part
    finally:
        upcoming.cancel()
