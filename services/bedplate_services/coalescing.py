"""Searches that arrive together go to the index together.

FAISS answers many queries for less than one after the other, and a call costs some tens of microseconds
whatever it does. An idle server waits for nothing: a query goes with those that the event loop read in the
same turn, and those that come while a call runs go together in the next one.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from bedplate.wire.filters import Filter
from bedplate_services.logging import get_logger
from bedplate_store.readers import SearchResult

_log = get_logger(__name__)
Outcome = SearchResult | Exception
Done = Callable[[Outcome], None]

_INLINE_SECONDS = 0.002
"""Calls that are shorter run on the event loop: a thread hop and the GIL's change of hands cost as much."""
_INLINE_QUERIES = 15
"""The index searches so few by one thread (``bedplate_store.indexes``); waking others for a call on the loop,
beside clients that want the cores as well, costs more than it gains. The rest follows in the next turn, and
the answers to the first are on their way meanwhile."""
_THREAD_QUERIES = 256
_WEIGHT = 0.25  # of the newest measurement of what a query costs


class Searchable(Protocol):
    """What searches are handed to: a reader, or some shards of one."""

    def search(
        self,
        vectors: NDArray[np.float32],
        k: int,
        ef: int | None = None,
        recall: float | None = None,
        filter: Filter | None = None,
    ) -> SearchResult: ...


@dataclass(frozen=True, slots=True)
class _Waiting:
    vectors: NDArray[np.float32]  # [Q, D]
    done: Done


@dataclass(slots=True)
class _Line:
    """Searches of one reader with one setting: those that wait, and what a query has cost lately."""

    waiting: list[_Waiting] = field(default_factory=list)
    busy: bool = False  # a call runs, or is due in a coming turn: what comes now goes along, or after it
    seconds_per_query: float | None = None


_Settings = tuple[int, int | None, float | None, Filter | None]


class SearchQueue:
    """Belongs to one event loop.

    Args:
        inline_seconds: calls expected to be shorter run on the loop; 0: all run in threads.
    """

    def __init__(
        self,
        *,
        inline_seconds: float = _INLINE_SECONDS,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._inline_seconds = inline_seconds
        self._clock = clock
        self._lines: WeakKeyDictionary[Searchable, dict[_Settings, _Line]] = WeakKeyDictionary()
        self._due: list[tuple[Searchable, _Settings, _Line]] = []

    def submit(
        self,
        reader: Searchable,
        vectors_QD: NDArray[np.float32],
        k: int,
        ef: int | None,
        done: Done,
        *,
        recall: float | None = None,
        filter: Filter | None = None,
    ) -> None:
        """Search soon; ``done`` is called on the loop with the result, or the exception, of these queries."""
        settings = (k, ef, recall, filter)
        lines = self._lines.get(reader)
        if lines is None:
            lines = self._lines[reader] = {}
        line = lines.get(settings)
        if line is None:
            line = lines[settings] = _Line()
        line.waiting.append(_Waiting(vectors_QD, done))
        if not line.busy:
            self._put_due(reader, settings, line)

    async def search(
        self,
        reader: Searchable,
        vectors_QD: NDArray[np.float32],
        k: int,
        ef: int | None,
        *,
        recall: float | None = None,
        filter: Filter | None = None,
    ) -> SearchResult:
        """The same for a coroutine. Raises what ``Searchable.search`` raises."""
        answer: asyncio.Future[SearchResult] = asyncio.get_running_loop().create_future()

        def done(outcome: Outcome) -> None:
            if answer.done():
                return  # cancelled
            if isinstance(outcome, Exception):
                answer.set_exception(outcome)
            else:
                answer.set_result(outcome)

        self.submit(reader, vectors_QD, k, ef, done, recall=recall, filter=filter)
        return await answer

    def _put_due(self, reader: Searchable, settings: _Settings, line: _Line) -> None:
        line.busy = True
        if not self._due:
            asyncio.get_running_loop().call_soon(self._start_due)
        self._due.append((reader, settings, line))

    def _start_due(self) -> None:
        due, self._due = self._due, []
        for reader, settings, line in due:
            self._start(reader, settings, line)

    def _start(self, reader: Searchable, settings: _Settings, line: _Line) -> None:
        cost = line.seconds_per_query
        count = max(len(line.waiting[0].vectors), min(_INLINE_QUERIES, _queries(line.waiting)))
        if cost is not None and cost * count <= self._inline_seconds:
            batch = _take(line.waiting, _INLINE_QUERIES)
            outcomes, seconds = self._run(reader, settings, batch)
            self._finish(line, batch, outcomes, seconds / _queries(batch))
            self._go_on(reader, settings, line)
            return
        batch = _take(line.waiting, _THREAD_QUERIES)
        call = asyncio.get_running_loop().run_in_executor(None, self._run, reader, settings, batch)
        call.add_done_callback(lambda done: self._ran(reader, settings, line, batch, *done.result()))

    def _ran(
        self,
        reader: Searchable,
        settings: _Settings,
        line: _Line,
        batch: Sequence[_Waiting],
        outcomes: Sequence[Outcome],
        seconds: float,
    ) -> None:
        self._finish(line, batch, outcomes, seconds / _queries(batch))
        self._go_on(reader, settings, line)

    def _go_on(self, reader: Searchable, settings: _Settings, line: _Line) -> None:
        """With more than one call may take, and with what came meanwhile."""
        line.busy = False
        if line.waiting:
            self._put_due(reader, settings, line)

    def _finish(
        self, line: _Line, batch: Sequence[_Waiting], outcomes: Sequence[Outcome], seconds_per_query: float
    ) -> None:
        before = line.seconds_per_query
        newest = seconds_per_query
        line.seconds_per_query = newest if before is None else before + _WEIGHT * (newest - before)
        for one, outcome in zip(batch, outcomes, strict=True):
            try:
                one.done(outcome)
            except Exception:  # noqa: BLE001  # logged with its traceback
                # Whoever waits beside it, here or in the other lines of this turn, must still be answered.
                _log.exception("the answer to a search could not be given")

    def _run(
        self, reader: Searchable, settings: _Settings, batch: Sequence[_Waiting]
    ) -> tuple[list[Outcome], float]:
        began = self._clock()
        outcomes = _search(reader, settings, batch)
        return outcomes, self._clock() - began


def _queries(waiting: Sequence[_Waiting]) -> int:
    return sum(len(one.vectors) for one in waiting)


def _take(waiting: list[_Waiting], most: int) -> list[_Waiting]:
    """The first of those that wait, of ``most`` queries together; at least one."""
    count = queries = 0
    for one in waiting:
        queries += len(one.vectors)
        if count and queries > most:
            break
        count += 1
    taken = waiting[:count]
    del waiting[:count]
    return taken


def _search(reader: Searchable, settings: _Settings, batch: Sequence[_Waiting]) -> list[Outcome]:
    try:
        if len(batch) == 1:
            return [reader.search(batch[0].vectors, *settings)]
        whole = reader.search(np.concatenate([one.vectors for one in batch]), *settings)
    except Exception as error:  # noqa: BLE001  # told to whoever asked
        if len(batch) == 1:
            return [error]
        # One bad query must not spoil the others.
        return [outcome for one in batch for outcome in _search(reader, settings, [one])]
    ends = np.cumsum([len(one.vectors) for one in batch]).tolist()
    return [_part(whole, start, end) for start, end in zip([0, *ends], ends, strict=False)]


def _part(whole: SearchResult, start: int, end: int) -> SearchResult:
    return SearchResult(
        whole.keys[start:end],
        whole.scores[start:end],
        whole.found[start:end],
        whole.snapshot,
        whole.sequence,
    )
