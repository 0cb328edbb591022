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
from typing import Any, Literal, NamedTuple, Protocol
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from bedplate.codecs import Keys
from bedplate.wire.filters import Filter
from bedplate_services.logging import get_logger
from bedplate_store.readers import SearchResult

_log = get_logger(__name__)
Outcome = SearchResult | Exception
Done = Callable[[Outcome], None]
Queries = NDArray[np.float32] | Keys
"""[Q, D] vectors, or Q keys."""

_INLINE_SECONDS = 0.002
"""Calls that are shorter run on the event loop: a thread hop and the GIL's change of hands cost as much."""
_INLINE_QUERIES = 32
"""The index searches so few by one thread (``bedplate_store.indexes``); waking others for a call on the loop,
beside clients that want the cores as well, costs more than it gains. The rest follows in the next turn, and
the answers to the first are on their way meanwhile."""
_THREAD_QUERIES = 256
_LINES_MAX = 1024  # of one reader: filters may differ from request to request
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


class SearchableByKey(Searchable, Protocol):
    """A reader, which knows the vectors of its keys as well."""

    def search_by_key(
        self,
        keys: Keys,
        k: int,
        ef: int | None = None,
        recall: float | None = None,
        filter: Filter | None = None,
    ) -> SearchResult: ...


class _Waiting(NamedTuple):
    queries: Queries
    done: Done


@dataclass(slots=True)
class _Line:
    """Searches of one reader with one setting: those that wait, and what a query has cost lately."""

    search: Callable[[Any, Any], SearchResult]  # of the reader and queries of one kind
    waiting: list[_Waiting] = field(default_factory=list)
    busy: bool = False  # a call runs, or is due in a coming turn: what comes now goes along, or after it
    seconds_per_query: float | None = None


class _Setting(NamedTuple):
    """What searches share that go together. The filter is JSON: to Python 1, 1.0 and true are equal."""

    kind: Literal["vector", "number", "string"]
    k: int
    ef: int | None
    recall: float | None
    filter: str | None


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
        self._lines: WeakKeyDictionary[Searchable, dict[_Setting, _Line]] = WeakKeyDictionary()
        self._due: list[tuple[Searchable, _Line]] = []

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

        def search(reader: Searchable, vectors: NDArray[np.float32]) -> SearchResult:
            return reader.search(vectors, k, ef, recall, filter)

        setting = _Setting("vector", k, ef, recall, _told(filter))
        self._wait(reader, setting, search, _Waiting(vectors_QD, done))

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
        """As :meth:`submit`, for a coroutine. Raises what ``Searchable.search`` raises."""
        answer: asyncio.Future[SearchResult] = asyncio.get_running_loop().create_future()
        self.submit(reader, vectors_QD, k, ef, _settles(answer), recall=recall, filter=filter)
        return await answer

    def submit_by_key(
        self,
        reader: SearchableByKey,
        keys: Keys,
        k: int,
        ef: int | None,
        done: Done,
        *,
        recall: float | None = None,
        filter: Filter | None = None,
    ) -> None:
        """As :meth:`submit`, by key."""

        def search(reader: SearchableByKey, keys: Keys) -> SearchResult:
            return reader.search_by_key(keys, k, ef, recall, filter)

        kind: Literal["number", "string"] = "number" if isinstance(keys, np.ndarray) else "string"
        setting = _Setting(kind, k, ef, recall, _told(filter))
        self._wait(reader, setting, search, _Waiting(keys, done))

    async def search_by_key(
        self,
        reader: SearchableByKey,
        keys: Keys,
        k: int,
        ef: int | None,
        *,
        recall: float | None = None,
        filter: Filter | None = None,
    ) -> SearchResult:
        """As :meth:`submit_by_key`, for a coroutine. Raises what ``SearchableByKey.search_by_key`` raises."""
        answer: asyncio.Future[SearchResult] = asyncio.get_running_loop().create_future()
        self.submit_by_key(reader, keys, k, ef, _settles(answer), recall=recall, filter=filter)
        return await answer

    def _wait(
        self,
        reader: Searchable,
        setting: _Setting,
        search: Callable[[Any, Any], SearchResult],
        waiting: _Waiting,
    ) -> None:
        lines = self._lines.get(reader)
        if lines is None:
            lines = self._lines[reader] = {}
        line = lines.get(setting)
        if line is None:
            if len(lines) >= _LINES_MAX:
                lines.clear()  # those that are busy are answered all the same
            line = lines[setting] = _Line(search)
        line.waiting.append(waiting)
        if not line.busy:
            self._put_due(reader, line)

    def _put_due(self, reader: Searchable, line: _Line) -> None:
        line.busy = True
        if not self._due:
            asyncio.get_running_loop().call_soon(self._start_due)
        self._due.append((reader, line))

    def _start_due(self) -> None:
        due, self._due = self._due, []
        for reader, line in due:
            self._start(reader, line)

    def _start(self, reader: Searchable, line: _Line) -> None:
        cost = line.seconds_per_query
        count = max(len(line.waiting[0].queries), min(_INLINE_QUERIES, _queries(line.waiting)))
        if cost is not None and cost * count <= self._inline_seconds:
            batch = _take(line.waiting, _INLINE_QUERIES)
            outcomes, seconds = self._run(reader, line, batch)
            self._finish(line, batch, outcomes, seconds / _queries(batch))
            self._go_on(reader, line)
            return
        batch = _take(line.waiting, _THREAD_QUERIES)
        call = asyncio.get_running_loop().run_in_executor(None, self._run, reader, line, batch)
        call.add_done_callback(lambda done: self._ran(reader, line, batch, *done.result()))

    def _ran(
        self,
        reader: Searchable,
        line: _Line,
        batch: Sequence[_Waiting],
        outcomes: Sequence[Outcome],
        seconds: float,
    ) -> None:
        self._finish(line, batch, outcomes, seconds / _queries(batch))
        self._go_on(reader, line)

    def _go_on(self, reader: Searchable, line: _Line) -> None:
        """With more than one call may take, and with what came meanwhile."""
        line.busy = False
        if line.waiting:
            self._put_due(reader, line)

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

    def _run(self, reader: Searchable, line: _Line, batch: Sequence[_Waiting]) -> tuple[list[Outcome], float]:
        began = self._clock()
        outcomes = _search(reader, line, batch)
        return outcomes, self._clock() - began


def _told(filter: Filter | None) -> str | None:
    return None if filter is None else filter.text


def _settles(answer: asyncio.Future[SearchResult]) -> Done:
    def done(outcome: Outcome) -> None:
        if answer.done():
            return  # cancelled
        if isinstance(outcome, Exception):
            answer.set_exception(outcome)
        else:
            answer.set_result(outcome)

    return done


def _queries(waiting: Sequence[_Waiting]) -> int:
    return sum(len(one.queries) for one in waiting)


def _take(waiting: list[_Waiting], most: int) -> list[_Waiting]:
    """The first of those that wait, of ``most`` queries together; at least one."""
    count = queries = 0
    for one in waiting:
        queries += len(one.queries)
        if count and queries > most:
            break
        count += 1
    taken = waiting[:count]
    del waiting[:count]
    return taken


def _search(reader: Searchable, line: _Line, batch: Sequence[_Waiting]) -> list[Outcome]:
    try:
        if len(batch) == 1:
            return [line.search(reader, batch[0].queries)]
        whole = line.search(reader, _joined([one.queries for one in batch]))
    except Exception as error:  # noqa: BLE001  # told to whoever asked
        if len(batch) == 1:
            return [error]
        # One bad query must not spoil the others.
        return [outcome for one in batch for outcome in _search(reader, line, [one])]
    ends = np.cumsum([len(one.queries) for one in batch]).tolist()
    return [_part(whole, start, end) for start, end in zip([0, *ends], ends, strict=False)]


def _joined(queries: Sequence[Any]) -> Queries:
    """Of one kind, or they would wait in different lines."""
    if isinstance(queries[0], np.ndarray):
        return np.concatenate(queries)
    return [key for keys in queries for key in keys]


def _part(whole: SearchResult, start: int, end: int) -> SearchResult:
    return SearchResult(
        whole.keys[start:end],
        whole.scores[start:end],
        whole.found[start:end],
        whole.snapshot,
        whole.sequence,
    )
