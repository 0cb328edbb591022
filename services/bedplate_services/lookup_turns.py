"""Lookups that the event loop read in one turn are looked up together.

Most of what a lookup of 100 keys costs beside memory is calls into NumPy, a dozen for any number of keys. A
lone lookup waits for nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from bedplate.codecs import VectorDtype
from bedplate_store.readers import LookupResult

Outcome = LookupResult | Exception
Done = Callable[[Outcome], None]

_KEYS_MAX = 800
"""Of 256 float32 that many vectors fill most of a core's cache, where the kernel should still find them."""


_LONELY_TURNS = 8
_ALONE_LOOKUPS = 256
"""After so many turns with one lookup each, so many lookups do not wait for the end of theirs, which costs
some microseconds; then it is tried again."""


class Lookable(Protocol):
    """What lookups are handed to: a reader, or some shards of one."""

    def lookup(self, keys: NDArray[np.int64], dtype: VectorDtype | None = None) -> LookupResult: ...


class _Waiting(NamedTuple):
    reader: Lookable
    keys: NDArray[np.int64]
    dtype: VectorDtype
    done: Done


class LookupTurns:
    """Belongs to one event loop, on which the lookups run: for those that are short."""

    def __init__(self) -> None:
        self._waiting: list[_Waiting] = []
        self._lonely_turns = 0
        self._alone = 0

    def submit(self, reader: Lookable, keys: NDArray[np.int64], dtype: VectorDtype, done: Done) -> None:
        """Look up now or at the end of the turn; ``done`` gets the result of these keys, or the exception."""
        if self._alone and not self._waiting:
            self._alone -= 1
            done(_look_up(reader, keys, dtype))
            return
        if not self._waiting:
            asyncio.get_running_loop().call_soon(self._run)
        self._waiting.append(_Waiting(reader, keys, dtype, done))

    def _run(self) -> None:
        waiting, self._waiting = self._waiting, []
        self._lonely_turns = self._lonely_turns + 1 if len(waiting) == 1 else 0
        if self._lonely_turns == _LONELY_TURNS:
            self._lonely_turns, self._alone = 0, _ALONE_LOOKUPS
        start = 0
        while start < len(waiting):
            end, keys = start + 1, len(waiting[start].keys)
            while end < len(waiting) and _alike(waiting[start], waiting[end]):
                keys += len(waiting[end].keys)
                if keys > _KEYS_MAX:
                    break
                end += 1
            _answer(waiting[start:end])
            start = end


def _alike(one: _Waiting, other: _Waiting) -> bool:
    return one.reader is other.reader and one.dtype == other.dtype


def _look_up(reader: Lookable, keys: NDArray[np.int64], dtype: VectorDtype) -> Outcome:
    try:
        return reader.lookup(keys, dtype)
    except Exception as error:  # noqa: BLE001  # told to whoever asked
        return error


def _answer(batch: Sequence[_Waiting]) -> None:
    """``batch`` asks one reader for one element type."""
    if len(batch) == 1:
        batch[0].done(_look_up(batch[0].reader, batch[0].keys, batch[0].dtype))
        return
    whole = _look_up(batch[0].reader, np.concatenate([one.keys for one in batch]), batch[0].dtype)
    start = 0
    for one in batch:
        end = start + len(one.keys)
        one.done(whole if isinstance(whole, Exception) else _part(whole, start, end))
        start = end


def _part(whole: LookupResult, start: int, end: int) -> LookupResult:
    return LookupResult(whole.found[start:end], whole.vectors[start:end], whole.snapshot, whole.sequence)
