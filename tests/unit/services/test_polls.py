"""Polls that requests ask for: few, shared, and never older than the request."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from bedplate_services.serving.polls import SharedPolls


class Registry:
    """Counts polls; time passes only where somebody sleeps."""

    def __init__(self) -> None:
        self.now = 100.0
        self.polled_at: list[float] = []
        self.error: Exception | None = None
        self.polls = SharedPolls(self.poll, clock=lambda: self.now, sleep=self.sleep)

    def poll(self) -> None:
        self.polled_at.append(round(self.now, 3))
        if self.error is not None:
            raise self.error

    async def sleep(self, seconds: float) -> None:
        self.now += seconds


def run(test: Callable[[Registry], Awaitable[None]]) -> Registry:
    registry = Registry()

    async def main() -> None:
        await test(registry)

    asyncio.run(main())
    return registry


def test_the_first_request_does_not_wait() -> None:
    assert run(lambda registry: registry.polls.poll()).polled_at == [100.0]


def test_polls_one_after_the_other_keep_their_distance() -> None:
    async def ask(registry: Registry) -> None:
        for _ in range(4):
            await registry.polls.poll()
        registry.now = 200.0
        await registry.polls.poll()

    assert run(ask).polled_at == [100.0, 100.2, 100.4, 100.6, 200.0]


def test_a_crowd_waits_for_one_poll() -> None:
    async def ask(registry: Registry) -> None:
        await asyncio.gather(*(registry.polls.poll() for _ in range(500)))

    assert run(ask).polled_at == [100.0]


def test_who_comes_during_a_poll_gets_the_next_one() -> None:
    async def ask(registry: Registry) -> None:
        loop = asyncio.get_running_loop()
        arrived = asyncio.Event()
        original = registry.poll

        def poll() -> None:
            original()
            asyncio.run_coroutine_threadsafe(arrive(), loop).result()

        late: list[asyncio.Task[None]] = []

        async def arrive() -> None:
            if not late:
                late.extend(asyncio.create_task(registry.polls.poll()) for _ in range(3))
                arrived.set()

        registry.polls = SharedPolls(poll, clock=lambda: registry.now, sleep=registry.sleep)
        await registry.polls.poll()
        await arrived.wait()
        await asyncio.gather(*late)

    assert run(ask).polled_at == [100.0, 100.2]


def test_an_error_reaches_those_who_wait_and_nobody_else() -> None:
    async def ask(registry: Registry) -> None:
        registry.error = ConnectionError("away")
        answers = await asyncio.gather(*(registry.polls.poll() for _ in range(2)), return_exceptions=True)
        assert answers == [registry.error] * 2
        registry.error = None
        await registry.polls.poll()

    assert len(run(ask).polled_at) == 2


def test_one_who_goes_away_does_not_take_the_poll_along() -> None:
    async def ask(registry: Registry) -> None:
        leaving, staying = (asyncio.create_task(registry.polls.poll()) for _ in range(2))
        await asyncio.sleep(0)
        leaving.cancel()
        await staying
        with pytest.raises(asyncio.CancelledError):
            await leaving

    assert run(ask).polled_at == [100.0]
