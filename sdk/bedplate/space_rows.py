"""Which rows of a space live, and in which order bulk reads give them.

A space is its base segment and the writes above it. Its live rows are the rows of the base that no write
replaced or deleted, in the base's order, then the newest row of each written key, by key. They are counted
from 0, so that a row number means the same to everybody who reads the same snapshot and sequence.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bedplate.errors import InvalidRequest


@dataclass(frozen=True, slots=True)
class Piece:
    """Live rows that follow each other, of the base or (``newer``) of the writes.

    Attributes:
        start, stop: the first row and the one behind the last, within the base or the newer rows.
        dead: rows in between that do not live, counted from ``start``, ascending.
    """

    newer: bool
    start: int
    stop: int
    dead: NDArray[np.int64]

    def __len__(self) -> int:
        return self.stop - self.start - len(self.dead)

    @property
    def rows(self) -> NDArray[np.int64]:
        """The live ones of ``start`` to ``stop``."""
        return np.delete(np.arange(self.start, self.stop), self.dead)


class RowOrder:
    """The order of the live rows.

    Args:
        base_rows: rows of the base.
        dead: int64, ascending: which of them were replaced or deleted by a write.
        newer_rows: how many written keys have a row.
    """

    def __init__(self, base_rows: int, dead: NDArray[np.int64], newer_rows: int) -> None:
        self._dead = dead
        self._base = base_rows - len(dead)
        self._newer = newer_rows
        # Row i of those that live lies behind as many dead ones as have no more than i live ones before them.
        self._live_before_dead = dead - np.arange(len(dead))

    def __len__(self) -> int:
        return self._base + self._newer

    def shard(self, number: int, count: int) -> range:
        """The rows of shard ``number`` of ``count``: all shards together are all rows, and none overlap.

        Raises:
            InvalidRequest: there is no such shard.
        """
        if not 0 <= number < count:
            raise InvalidRequest(f"There is no shard {number} of {count}; they are numbered from 0.")
        return range(len(self) * number // count, len(self) * (number + 1) // count)

    def pieces(self, rows: range, step: int) -> Iterator[Piece]:
        """``rows`` in pieces of at most ``step``; none holds rows of the base and newer ones."""
        for first in range(rows.start, min(rows.stop, self._base), step):
            yield self._of_base(first, min(first + step, rows.stop, self._base))
        for first in range(max(rows.start, self._base), rows.stop, step):
            last = min(first + step, rows.stop)
            yield Piece(True, first - self._base, last - self._base, np.empty(0, np.int64))

    def _of_base(self, first: int, stop: int) -> Piece:
        start, end = self._place(first), self._place(stop - 1) + 1
        between = self._dead[np.searchsorted(self._dead, start) : np.searchsorted(self._dead, end)]
        return Piece(False, start, end, between - start)

    def _place(self, row: int) -> int:
        return row + int(np.searchsorted(self._live_before_dead, row, side="right"))
