"""Micro-batching: who arrives while the model is busy goes together, and fails alone."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence

import pytest

from bedplate.errors import NotFound, Unavailable
from bedplate_services.metrics import NullMetrics
from bedplate_services.serving.batching import MicroBatcher


class Model:
    """Doubles numbers; waits for ``gate`` first, refuses negative ones."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.threads: set[int] = set()
        self.started = threading.Event()
        self.gate = threading.Event()
        self.gate.set()

    def __call__(self, batch: Sequence[int]) -> list[int | Exception]:
        self.started.set()
        assert self.gate.wait(10)
        self.batches.append(list(batch))
        self.threads.add(threading.get_ident())
        return [2 * one if one >= 0 else NotFound(f"No {one}.") for one in batch]


def test_requests_that_arrive_during_a_pass_share_the_next() -> None:
    model = Model()

    async def run() -> list[int]:
        batcher: MicroBatcher[int, int] = MicroBatcher(model, NullMetrics(), limit=3)
        model.gate.clear()
        first = asyncio.create_task(batcher.submit(0))
        await asyncio.to_thread(model.started.wait)
        others = [asyncio.create_task(batcher.submit(number)) for number in range(1, 6)]
        await asyncio.sleep(0)
        model.gate.set()
        answers = [await first, *[await other for other in others]]
        batcher.close()
        return answers

    assert asyncio.run(run()) == [0, 2, 4, 6, 8, 10]
    assert model.batches == [[0], [1, 2, 3], [4, 5]]
    assert len(model.threads) == 1


def test_an_error_belongs_to_one_request() -> None:
    async def run() -> list[int | BaseException]:
        batcher: MicroBatcher[int, int] = MicroBatcher(Model(), NullMetrics())
        answers = await asyncio.gather(
            batcher.submit(1), batcher.submit(-1), batcher.submit(2), return_exceptions=True
        )
        batcher.close()
        return list(answers)

    one, error, two = asyncio.run(run())
    assert (one, two) == (2, 4)
    assert isinstance(error, NotFound)


def test_a_broken_model_answers_everybody() -> None:
    def broken(_: Sequence[int]) -> list[int | Exception]:
        raise RuntimeError("no model")

    async def run() -> None:
        batcher: MicroBatcher[int, int] = MicroBatcher(broken, NullMetrics())
        with pytest.raises(RuntimeError):
            await batcher.submit_all([1, 2])
        batcher.close()

    asyncio.run(run())


def test_too_many_waiting_are_refused() -> None:
    model = Model()

    async def run() -> None:
        batcher: MicroBatcher[int, int] = MicroBatcher(model, NullMetrics(), capacity=2)
        model.gate.clear()
        busy = asyncio.create_task(batcher.submit(0))
        await asyncio.to_thread(model.started.wait)
        waiting = asyncio.create_task(batcher.submit_all([1, 2]))
        await asyncio.sleep(0)
        with pytest.raises(Unavailable):
            await batcher.submit(3)
        model.gate.set()
        assert await busy == 0
        assert await waiting == [2, 4]
        batcher.close()

    asyncio.run(run())


def test_who_gave_up_is_not_computed() -> None:
    model = Model()

    async def run() -> None:
        batcher: MicroBatcher[int, int] = MicroBatcher(model, NullMetrics())
        model.gate.clear()
        busy = asyncio.create_task(batcher.submit(0))
        await asyncio.to_thread(model.started.wait)
        gone = asyncio.create_task(batcher.submit(1))
        kept = asyncio.create_task(batcher.submit(2))
        await asyncio.sleep(0)
        gone.cancel()
        await asyncio.sleep(0)
        model.gate.set()
        assert (await busy, await kept) == (0, 4)
        batcher.close()

    asyncio.run(run())
    assert model.batches == [[0], [2]]
