"""Requests for store nodes that the event loop read in one turn are sent to them together.

An exchange with a node costs about as much for eight lookups as for one. Nothing waits for an exchange under
way: what came in a turn is asked for at its end.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Awaitable, Callable, Hashable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from bedplate.codecs import Keys, VectorDtype
from bedplate.errors import BedplateError, InvalidRequest
from bedplate_services.logging import get_logger
from bedplate_services.searches import Query
from bedplate_services.shards.exchange import REQUESTS_MAX
from bedplate_services.shards.fan_out import FanOut, RemoteLookup, RemoteSearch
from bedplate_store.segments import validate_vectors
from bedplate_store.shard_routing import RemoteSpace

_log = get_logger(__name__)
LookupDone = Callable[[RemoteLookup | Exception], None]
SearchDone = Callable[[RemoteSearch | Exception], None]

_KEYS_MAX = 1600
"""Of one message: more are hardly cheaper, and so many a node looks up without a thread."""
_QUERIES_MAX = 64


@dataclass(frozen=True, slots=True)
class _Waiting:
    asked: Any  # keys or vectors
    request_id: str
    done: Callable[[Any], None]


@dataclass(frozen=True, slots=True)
class _Line:
    """Requests of one space and setting; ``most`` keys or queries go in one message."""

    ask: Callable[[Any, Sequence[str]], Awaitable[Any]]
    most: int
    waiting: list[_Waiting] = field(default_factory=list)


class RemoteTurns:
    """Belongs to one event loop."""

    def __init__(self, fan_out: FanOut) -> None:
        self._fan_out = fan_out
        self._lines: dict[Hashable, _Line] = {}
        self._running: set[asyncio.Task[None]] = set()

    def lookup(
        self, space: RemoteSpace, keys: Keys, dtype: VectorDtype, request_id: str, done: LookupDone
    ) -> None:
        """``done`` is called with what ``FanOut.lookup`` gives or raises for these keys."""
        # A space by identity: the same nodes, at the same state.
        setting = ("lookup", id(space), dtype, isinstance(keys, np.ndarray))
        self._wait(
            setting,
            _Line(lambda asked, ids: self._fan_out.lookup(space, asked, dtype, ids), _KEYS_MAX),
            _Waiting(keys, request_id, done),
        )

    def search(self, space: RemoteSpace, query: Query, request_id: str, done: SearchDone) -> None:
        """``done`` is called with what ``FanOut.search`` gives or raises for these vectors."""
        try:
            vectors = validate_vectors(query.vectors, space.dim).astype(np.float32, copy=False)
        except BedplateError as error:  # of this request alone, so it is not joined with others
            done(error)
            return
        # The filter as JSON: to Python 1, 1.0 and true are equal.
        filter = None if query.filter is None else query.filter.text
        setting = ("search", id(space), query.k, query.ef, query.recall, filter)
        self._wait(
            setting,
            _Line(
                lambda asked, ids: self._fan_out.search(space, replace(query, vectors=asked), ids),
                _QUERIES_MAX,
            ),
            _Waiting(vectors, request_id, done),
        )

    def _wait(self, setting: Hashable, line: _Line, waiting: _Waiting) -> None:
        if not self._lines:
            # In a context of its own: that of one request would name the others by its id in the log.
            asyncio.get_running_loop().call_soon(self._send, context=contextvars.Context())
        self._lines.setdefault(setting, line).waiting.append(waiting)

    def _send(self) -> None:
        lines, self._lines = self._lines, {}
        for line in lines.values():
            for batch in _batches(line.waiting, line.most):
                task = asyncio.get_running_loop().create_task(_answer(line, batch))
                self._running.add(task)
                task.add_done_callback(self._running.discard)


async def _answer(line: _Line, batch: Sequence[_Waiting]) -> None:
    try:
        whole = await line.ask(_joined([one.asked for one in batch]), [one.request_id for one in batch])
    except InvalidRequest as error:
        if len(batch) == 1:
            _tell(batch[0], error)
        for one in batch if len(batch) > 1 else ():
            await _answer(line, [one])  # one bad request must not spoil the others
        return
    except Exception as error:  # noqa: BLE001  # told to whoever asked
        for one in batch:
            _tell(one, error)
        return
    start = 0
    for one in batch:
        stop = start + len(one.asked)
        _tell(one, whole if len(batch) == 1 else whole.part(start, stop))
        start = stop


def _tell(one: _Waiting, outcome: Any) -> None:
    try:
        one.done(outcome)
    except Exception:  # noqa: BLE001  # logged with its traceback
        # Whoever waits beside it must still be answered.
        _log.exception("the answer of the store nodes could not be given")


def _batches(waiting: Sequence[_Waiting], most: int) -> list[list[_Waiting]]:
    """In order, of ``most`` keys or queries and REQUESTS_MAX requests, each of one request at least."""
    batches: list[list[_Waiting]] = []
    size = most
    for one in waiting:
        if size + len(one.asked) > most or len(batches[-1]) == REQUESTS_MAX:
            batches.append([])
            size = 0
        batches[-1].append(one)
        size += len(one.asked)
    return batches


def _joined(asked: Sequence[Any]) -> Any:
    if len(asked) == 1:
        return asked[0]
    if isinstance(asked[0], np.ndarray):
        return np.concatenate(asked)
    return [key for keys in asked for key in keys]
