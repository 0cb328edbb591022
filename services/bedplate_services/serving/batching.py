"""Micro-batching: concurrent requests share passes of the model, in one worker thread."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from bedplate.errors import Unavailable
from bedplate_services.metrics import Metrics
from bedplate_store.tracing import UNTRACED, Tracing

AskedT = TypeVar("AskedT")
AnsweredT = TypeVar("AnsweredT")


@dataclass(frozen=True, slots=True)
class _Waiting(Generic[AskedT, AnsweredT]):
    """A request; ``span`` as the tracing told it."""

    asked: AskedT
    future: asyncio.Future[AnsweredT]
    span: Any


class MicroBatcher(Generic[AskedT, AnsweredT]):
    """Collects what arrives while the model is busy and hands it over together.

    Nobody waits for a batch to fill: an idle model starts at once with what there is. One thread runs
    all passes:
    the model's own operations use the cores, and a second pass beside it would only slow both.

    Args:
        work: answers a batch in order; an exception in the place of an answer goes to that request alone.
        limit: requests handed over together.
        capacity: requests that may wait; more are refused, so that a slow model answers instead of queueing.
        tracing: each pass is a span, with what it asks the databases in it.
    """

    def __init__(
        self,
        work: Callable[[Sequence[AskedT]], Sequence[AnsweredT | Exception]],
        metrics: Metrics,
        *,
        limit: int = 64,
        capacity: int = 1024,
        tracing: Tracing = UNTRACED,
    ) -> None:
        self._work = work
        self._metrics = metrics
        self._limit = limit
        self._capacity = capacity
        self._tracing = tracing
        self._waiting: deque[_Waiting[AskedT, AnsweredT]] = deque()
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
        span = self._tracing.here()
        self._waiting.extend(_Waiting(one, future, span) for one, future in zip(asked, futures, strict=True))
        if self._running is None or self._running.done():
            self._running = loop.create_task(self._run())
        return futures

    async def _run(self) -> None:
        while self._waiting:
            batch = [self._waiting.popleft() for _ in range(min(self._limit, len(self._waiting)))]
            wanted = [one for one in batch if not one.future.cancelled()]
            if wanted:
                await self._pass(wanted)

    async def _pass(self, wanted: Sequence[_Waiting[AskedT, AnsweredT]]) -> None:
        started = time.perf_counter()
        loop = asyncio.get_running_loop()
        answers: Sequence[AnsweredT | Exception]
        try:
            answers = await loop.run_in_executor(self._thread, self._run_traced, wanted)
        except Exception as error:  # noqa: BLE001  # handed to everyone who waits
            answers = [error] * len(wanted)
        self._metrics.batch(len(wanted), time.perf_counter() - started)
        for one, answer in zip(wanted, answers, strict=True):
            if one.future.done():
                continue
            if isinstance(answer, Exception):
                one.future.set_exception(answer)
            else:
                one.future.set_result(answer)

    def _run_traced(self, wanted: Sequence[_Waiting[AskedT, AnsweredT]]) -> Sequence[AnsweredT | Exception]:
        with self._tracing.together("model pass", [one.span for one in wanted]):
            return self._work([one.asked for one in wanted])
