"""Rows of a segment that a search may return: those that live and pass its filter."""

from __future__ import annotations

from collections.abc import Hashable
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bedplate.stored_vectors import StoredRows


class RowSelection:
    """Some of a segment's rows; immutable, shared by threads.

    Attributes:
        mask: bool [R], the rows selected.
        count: how many they are.
        prepared: what an index made of it for its searches, by its own keys. Made twice at worst.
    """

    def __init__(self, mask: NDArray[np.bool_]) -> None:
        self.mask = mask
        self.count = int(np.count_nonzero(mask))
        self.prepared: dict[Hashable, Any] = {}

    @property
    def share(self) -> float:
        """Selected rows over all rows."""
        return self.count / max(1, len(self.mask))

    @cached_property
    def rows(self) -> NDArray[np.int64]:
        """The selected rows [count], ascending."""
        return np.flatnonzero(self.mask)

    @cached_property
    def bits(self) -> NDArray[np.uint8]:
        """The mask, one bit a row, the lowest first."""
        return np.packbits(self.mask, bitorder="little")

    def gathered(self, stored: StoredRows) -> StoredRows:
        """The selected rows' vectors [count, W] as stored, one after the other."""
        gathered: StoredRows = stored[self.rows]
        return gathered
