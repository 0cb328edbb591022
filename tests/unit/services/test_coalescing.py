"""Searches that arrive together go together; each gets its own answer, and its own error."""

from __future__ import annotations

import asyncio
import threading
from typing import Any, cast

import numpy as np
import pytest

from bedplate.errors import KeyTypeMismatch, NonFiniteVectors
from bedplate.wire.filters import Filter
from bedplate_services import coalescing
from bedplate_services.coalescing import Outcome, SearchQueue
from bedplate_store.readers import SearchResult, SpaceReader


class Reader:
    """Answers each query with its own first element, and remembers what it was asked and in which thread."""

    def __init__(self) -> None:
        self.calls: list[tuple[int, int, int | None]] = []
        self.threads: set[int] = set()
        self.gate = threading.Event()
        self.gate.set()

    def search(self, vectors: Any, k: int, ef: int | None, *_: Any) -> SearchResult:
        assert self.gate.wait(10)
        self.threads.add(threading.get_ident())
        self.calls.append((len(vectors), k, ef))
        if np.isnan(vectors).any():
            raise NonFiniteVectors("a vector is not finite.")
        scores = np.repeat(vectors[:, :1], k, axis=1)
        return SearchResult(scores.astype(np.int64), scores, np.ones(len(vectors), np.bool_), 3, 4)

    def search_by_key(self, keys: Any, k: int, ef: int | None, *_: Any) -> SearchResult:
        if not isinstance(keys, np.ndarray):
            raise KeyTypeMismatch("the keys are numbers.")
        return self.search(np.stack([keys, keys], axis=1).astype(np.float32), k, ef)


def vectors(*firsts: float) -> Any:
    return np.array([[first, 0] for first in firsts], np.float32)


def ask(queue: SearchQueue, reader: Reader, queries: Any, k: int = 2, ef: int | None = None) -> Any:
    return queue.search(cast(SpaceReader, reader), queries, k, ef)


async def _gathered(queue: SearchQueue, reader: Reader, *queries: Any) -> list[Any]:
    return await asyncio.gather(*(ask(queue, reader, one) for one in queries), return_exceptions=True)


@pytest.mark.parametrize("inline_seconds", [0.0, 1000.0])
def test_those_of_one_turn_go_together(inline_seconds: float) -> None:
    async def run() -> None:
        queue, reader = SearchQueue(inline_seconds=inline_seconds), Reader()
        for _ in range(2):  # what the first call cost is what the second one is judged by
            first, second = await _gathered(queue, reader, vectors(1), vectors(2, 3))
            assert first.keys.tolist() == [[1, 1]]
            assert second.keys.tolist() == [[2, 2], [3, 3]]
            assert (second.snapshot, second.sequence, second.found.tolist()) == (3, 4, [True, True])
        assert reader.calls == [(3, 2, None)] * 2
        on_the_loop = threading.get_ident() in reader.threads
        assert on_the_loop == (inline_seconds > 0)

    asyncio.run(run())


def test_those_that_come_meanwhile_go_in_the_next_call() -> None:
    async def run() -> None:
        queue, reader = SearchQueue(inline_seconds=0), Reader()
        reader.gate.clear()
        asked = [asyncio.create_task(ask(queue, reader, vectors(0)))]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        for number in (1, 2, 3):
            asked.append(asyncio.create_task(ask(queue, reader, vectors(number))))
            await asyncio.sleep(0)
        reader.gate.set()
        answers = await asyncio.gather(*asked)
        assert [answer.scores[0, 0] for answer in answers] == [0, 1, 2, 3]
        assert reader.calls == [(1, 2, None), (3, 2, None)]

    asyncio.run(run())


def test_other_readers_and_settings_go_by_themselves() -> None:
    async def run() -> None:
        queue, reader, other = SearchQueue(), Reader(), Reader()
        await asyncio.gather(
            ask(queue, reader, vectors(1)),
            ask(queue, reader, vectors(1), 3),
            ask(queue, reader, vectors(1), 2, 64),
            ask(queue, other, vectors(1)),
        )
        assert sorted(reader.calls, key=str) == [(1, 2, 64), (1, 2, None), (1, 3, None)]
        assert other.calls == [(1, 2, None)]

    asyncio.run(run())


def test_a_bad_query_spoils_no_other() -> None:
    async def run() -> None:
        queue, reader = SearchQueue(), Reader()
        good, bad, also_good = await _gathered(queue, reader, vectors(1), vectors(np.nan), vectors(2))
        assert isinstance(bad, NonFiniteVectors)
        assert (good.scores[0, 0], also_good.scores[0, 0]) == (1, 2)

    asyncio.run(run())


@pytest.mark.parametrize(
    ("inline_seconds", "queries", "calls"), [(0.0, 100, [200, 200, 100]), (1000.0, 13, [26, 26, 13])]
)
def test_a_call_has_a_largest_size(inline_seconds: float, queries: int, calls: list[int]) -> None:
    async def run() -> None:
        queue, reader = SearchQueue(inline_seconds=inline_seconds), Reader()
        await ask(queue, reader, vectors(0))
        answers = await _gathered(queue, reader, *(vectors(*[number] * queries) for number in range(5)))
        assert [answer.scores[0, 0] for answer in answers] == [0, 1, 2, 3, 4]
        assert [count for count, _, _ in reader.calls[1:]] == calls

    asyncio.run(run())


def test_dear_searches_leave_the_loop() -> None:
    """One query may run on the loop where many together may not."""

    async def run() -> None:
        clock = iter(range(1000))  # each call takes a second
        queue, reader = SearchQueue(inline_seconds=1.5, clock=lambda: float(next(clock))), Reader()
        await ask(queue, reader, vectors(0))
        reader.threads.clear()
        await ask(queue, reader, vectors(0))
        assert reader.threads == {threading.get_ident()}
        reader.threads.clear()
        await ask(queue, reader, vectors(0, 1, 2))
        assert threading.get_ident() not in reader.threads

    asyncio.run(run())


def test_a_rest_that_more_comes_to_keeps_nobody_waiting() -> None:
    """What one call leaves is due in the next turn; a query that comes before it must not end that turn."""

    async def run() -> None:
        queue, reader, other = SearchQueue(inline_seconds=1000), Reader(), Reader()
        await _gathered(queue, reader, vectors(0))
        await _gathered(queue, other, vectors(0))
        answered: list[float] = []

        def submit(to: Reader, *firsts: float) -> None:
            def done(outcome: Outcome) -> None:
                assert isinstance(outcome, SearchResult)
                answered.extend(outcome.scores[:, 0].tolist())

            queue.submit(cast(SpaceReader, to), vectors(*firsts), 2, None, done)

        def more() -> None:  # runs between the call that leaves a rest and the one that takes it
            assert answered == [1] * 32
            submit(reader, 3)
            submit(other, 4)

        submit(reader, *[1.0] * 32)
        submit(reader, 2)
        asyncio.get_running_loop().call_soon(more)
        for _ in range(3):  # turns of the loop
            await asyncio.sleep(0)
        assert answered == [1] * 32 + [2, 3, 4]
        assert [count for count, _, _ in reader.calls[1:]] == [32, 2]

    asyncio.run(run())


def test_an_answer_that_cannot_be_given_takes_no_other_along() -> None:
    async def run() -> None:
        queue, reader, other = SearchQueue(inline_seconds=1000), Reader(), Reader()
        await _gathered(queue, reader, vectors(0))
        await _gathered(queue, other, vectors(0))
        answered: list[Outcome] = []

        def refuse(_: Outcome) -> None:
            raise ConnectionError("the client left")

        queue.submit(cast(SpaceReader, reader), vectors(1), 2, None, refuse)
        queue.submit(cast(SpaceReader, reader), vectors(2), 2, None, answered.append)
        queue.submit(cast(SpaceReader, other), vectors(3), 2, None, answered.append)
        await asyncio.sleep(0)
        assert [cast(SearchResult, one).scores[0, 0] for one in answered] == [2, 3]

    asyncio.run(run())


def test_those_by_key_go_together_and_apart_from_those_by_vector() -> None:
    async def run() -> None:
        queue, reader = SearchQueue(), Reader()

        def by_key(keys: Any) -> Any:
            return queue.search_by_key(cast(SpaceReader, reader), keys, 2, None)

        first, second, wrong, vector = await asyncio.gather(
            by_key(np.array([7])),
            by_key(np.array([8, 9])),
            by_key(["seven"]),
            ask(queue, reader, vectors(1)),
            return_exceptions=True,
        )
        assert (first.keys.tolist(), second.keys.tolist()) == ([[7, 7]], [[8, 8], [9, 9]])
        assert isinstance(wrong, KeyTypeMismatch)
        assert vector.keys.tolist() == [[1, 1]]
        assert sorted(count for count, _, _ in reader.calls) == [1, 3]

    asyncio.run(run())


@pytest.mark.parametrize(("value", "other"), [(1, True), (1, 1.0), (0, False)])
def test_filters_that_python_takes_for_equal_go_by_themselves(value: Any, other: Any) -> None:
    async def run() -> None:
        queue, reader = SearchQueue(), Reader()
        filters = [Filter(attribute="year", equals=each) for each in (value, other, value)]
        await asyncio.gather(
            *(queue.search(cast(SpaceReader, reader), vectors(1), 2, None, filter=one) for one in filters)
        )
        assert sorted(count for count, _, _ in reader.calls) == [1, 2]

    asyncio.run(run())


def test_filters_of_every_request_do_not_pile_up(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        queue, reader = SearchQueue(), Reader()
        filters = [Filter(attribute="year", equals=each) for each in range(10)]
        answers = await asyncio.gather(
            *(queue.search(cast(SpaceReader, reader), vectors(1), 2, None, filter=one) for one in filters)
        )
        assert len(answers) == 10
        assert len(queue._lines[cast(SpaceReader, reader)]) <= 4

    monkeypatch.setattr(coalescing, "_LINES_MAX", 4)
    asyncio.run(run())
