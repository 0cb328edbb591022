"""Micro-batching: concurrent requests share passes of the model, in one worker thread."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, TypeVar

from bedplate.errors import Unavailable
from bedplate_services.metrics import Metrics

AskedT = TypeVar("AskedT")
AnsweredT = TypeVar("AnsweredT")


class MicroBatcher(Generic[AskedT, AnsweredT]):
    """Collects what arrives while the model is busy and hands it over together.

    Nobody waits for a batch to fill: an idle model starts at once with what there is. One thread runs
    all passes:
    the model's own operations use the cores, and a second pass beside it would only slow both.

    Args:
        work: answers a batch in order; an exception in the place of an answer goes to that request alone.
        limit: requests handed over together.
        capacity: requests that may wait; more are refused, so that a slow model answers instead of queueing.
    """

    def __init__(
        self,
        work: Callable[[Sequence[AskedT]], Sequence[AnsweredT | Exception]],
        metrics: Metrics,
        *,
        limit: int = 64,
        capacity: int = 1024,
    ) -> None:
        self._work = work
        self._metrics = metrics
        self._limit = limit
        self._capacity = capacity
        self._waiting: deque[tuple[AskedT, asyncio.Future[AnsweredT]]] = deque()
        self._running: asyncio.Task[None] | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="model")

    async def submit(self, asked: AskedT) -> AnsweredT:
        """Wait for the answer to one request.

        Raises:
            Unavailable: too many wait already.
        """
        return await self._enqueue([asked])[0]

    async def submit_all(self, asked: Sequence[AskedT]) -> list[AnsweredT]:
        """Wait for the answers to several requests, in order; the first error ends the waiting."""
        return await asyncio.gather(*self._enqueue(asked))

    def close(self) -> None:
        self._thread.shutdown(wait=True, cancel_futures=True)

    def _enqueue(self, asked: Sequence[AskedT]) -> list[asyncio.Future[AnsweredT]]:
        if len(self._waiting) + len(asked) > self._capacity:
            raise Unavailable("Too many requests are waiting for the model; try again in a moment.")
        loop = asyncio.get_running_loop()
        futures: list[asyncio.Future[AnsweredT]] = [loop.create_future() for _ in asked]
        self._waiting.extend(zip(asked, futures, strict=True))
        if self._running is None or self._running.done():
            self._running = loop.create_task(self._run())
        return futures

    async def _run(self) -> None:
        while self._waiting:
            batch = [self._waiting.popleft() for _ in range(min(self._limit, len(self._waiting)))]
            wanted = [(asked, future) for asked, future in batch if not future.cancelled()]
            if wanted:
                await self._pass(wanted)

    async def _pass(self, wanted: Sequence[tuple[AskedT, asyncio.Future[AnsweredT]]]) -> None:
        started = time.perf_counter()
        loop = asyncio.get_running_loop()
        answers: Sequence[AnsweredT | Exception]
        try:
            answers = await loop.run_in_executor(self._thread, self._work, [asked for asked, _ in wanted])
        except Exception as error:  # noqa: BLE001  # handed to everyone who waits
            answers = [error] * len(wanted)
        self._metrics.batch(len(wanted), time.perf_counter() - started)
        for (_, future), answer in zip(wanted, answers, strict=True):
            if future.done():
                continue
            if isinstance(answer, Exception):
                future.set_exception(answer)
            else:
                future.set_result(answer)
