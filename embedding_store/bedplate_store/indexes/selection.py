"""Rows of a segment that a search may return: those that live and pass its filter."""

from __future__ import annotations

from collections.abc import Hashable
from functools import cached_property
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from bedplate.stored_vectors import StoredRows

Bits = NDArray[np.uint8]
"""One bit a row, the lowest first; bits beyond the rows are 0."""
ROWS_KEPT_MAX = 1 << 16
"""The numbers of so many selected rows are kept; those of more are made for each search that gathers them."""
GATHERED_BYTES_MAX = 4 << 20
"""So much of the selected rows' vectors is kept, one after the other: 4,096 rows of 256 float32."""
PARAMETERS_KEPT = 64
_PARAMETERS_BYTES = 256


def packed(mask: NDArray[np.bool_]) -> Bits:
    """The bits of a mask [R]."""
    return np.packbits(mask, bitorder="little")


class RowSelection:
    """Some of a segment's rows; immutable, shared by threads.

    Attributes:
        bits: which rows are selected.
        count: how many they are.
        keeps: whether searches may keep rows and vectors beside it. Parts of a selection keep none.
        prepared: what an index made of it for its searches, by its own keys. Made twice at worst.
    """

    def __init__(self, bits: Bits, rows: int, *, keeps: bool = True) -> None:
        self.bits = bits
        self.keeps = keeps
        self.count = int(np.bitwise_count(bits).sum(dtype=np.int64))
        self.prepared: dict[Hashable, Any] = {}
        self._rows_of_segment = rows

    @classmethod
    def of(cls, mask: NDArray[np.bool_]) -> Self:
        """The rows where ``mask`` [R] is true."""
        return cls(packed(mask), len(mask))

    @property
    def share(self) -> float:
        """Selected rows over all rows."""
        return self.count / max(1, self._rows_of_segment)

    @property
    def rows(self) -> NDArray[np.int64]:
        """The selected rows [count], ascending."""
        return self._kept_rows if self.keeps and self.count <= ROWS_KEPT_MAX else self._found_rows()

    def bytes_at_most(self, row_bytes: int) -> int:
        """Memory that it takes with all that searches keep beside it; ``row_bytes``: of a decoded vector."""
        gathered = self.count * row_bytes
        return (
            2 * self.bits.nbytes  # an index of several files has them once more, in parts
            + (8 * self.count if self.count <= ROWS_KEPT_MAX else 0)
            + (gathered if gathered <= GATHERED_BYTES_MAX else 0)
            + PARAMETERS_KEPT * _PARAMETERS_BYTES
        )

    def part(self, start: int, stop: int) -> RowSelection:
        """The selection among the segment's rows from ``start`` to ``stop``."""
        return RowSelection(packed(self.mask(start, stop)), stop - start, keeps=False)

    def mask(self, start: int = 0, stop: int | None = None) -> NDArray[np.bool_]:
        """bool [stop - start]: which of these rows are selected."""
        stop = self._rows_of_segment if stop is None else min(stop, self._rows_of_segment)
        first = start // 8
        bits = np.unpackbits(self.bits[first : -(-stop // 8)], bitorder="little")
        mask: NDArray[np.bool_] = bits[start - 8 * first : stop - 8 * first].view(np.bool_)
        return mask

    def gathered(self, stored: StoredRows) -> StoredRows:
        """The selected rows' vectors [count, W] as stored, one after the other."""
        gathered: StoredRows = stored[self.rows]
        return gathered

    @cached_property
    def _kept_rows(self) -> NDArray[np.int64]:
        return self._found_rows()

    def _found_rows(self) -> NDArray[np.int64]:
        return np.flatnonzero(self.mask())
