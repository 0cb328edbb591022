"""A perfect hash over sorted int64 keys: one entry read for each key asked for, in a dozen NumPy calls.

A key's hash names its bucket, and the bucket's displacement turns the next bits of the hash into a slot that
no other key of the segment has. The slot holds the key's row; the key itself is compared in the key column.
docs/format.md is the specification of the file; ``key_index_building`` makes it.
Shapes: n keys asked for, r rows, B buckets, S slots.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

INDEXED_FROM_ROWS = 1 << 16
"""Fewer keys lie in the processor's cache, where a binary search is as fast."""
WINDOW_BITS = 16
"""Before its displacement, a bucket's keys lie in a window of 2^16 slots: seldom two of them in one."""
PART_BITS = 16
"""Slots are handed out among 2^16 buckets at a time, so that memory does not grow with the rows."""
MULTIPLIER = np.array(0x9E3779B97F4A7C15, np.uint64)  # an array: NumPy takes longer over a scalar
UNPLACED = np.array(1 << 63, np.uint64)
"""Displacement of a bucket whose keys have no slots: they are searched for in the column."""
_KEYS_PER_BUCKET = 5  # at most, on average; and half of it at least
_SLOTS_PER_KEY = 1.5


def wants_index(keys: NDArray[np.int64]) -> bool:
    """Whether a column of these sorted keys has an index: many keys, with gaps between them."""
    rows = len(keys)
    return rows >= INDEXED_FROM_ROWS and int(keys[-1]) - int(keys[0]) != rows - 1


@dataclass(frozen=True)
class Layout:
    """Where things lie in the index of so many rows.

    Attributes:
        bucket_bits: log2 of B.
        parts: parts of the buckets, each with ``slots_per_part`` slots of its own.
    """

    bucket_bits: int
    parts: int
    slots_per_part: int

    @classmethod
    def of(cls, rows: int) -> Self:
        bucket_bits = max(1, (max(1, rows - 1) // _KEYS_PER_BUCKET).bit_length())
        parts = 1 << max(0, bucket_bits - PART_BITS)
        return cls(bucket_bits, parts, int(_SLOTS_PER_KEY * rows / parts) + (1 << WINDOW_BITS))

    @property
    def buckets_per_part(self) -> int:
        return (1 << self.bucket_bits) // self.parts

    @property
    def bytes(self) -> int:
        return (8 << self.bucket_bits) + 4 * self.parts * self.slots_per_part

    def displacements(self, data: NDArray[np.uint8]) -> NDArray[np.uint64]:
        """[B], modulo 2^64, a view of the file's bytes."""
        return data[: 8 << self.bucket_bits].view("<u8")

    def slots(self, data: NDArray[np.uint8]) -> NDArray[np.uint32]:
        """[S] rows, 0 where no key has the slot, a view of the file's bytes."""
        return data[8 << self.bucket_bits :].view("<u4")


class KeyIndex:
    """The index of a key column ``keys`` [r], over the bytes of its file."""

    def __init__(self, data: NDArray[np.uint8], keys: NDArray[np.int64]) -> None:
        layout = Layout.of(len(keys))
        self._displacements = layout.displacements(data)
        self._slots = layout.slots(data)
        self._keys = keys
        self._bucket_shift = np.array(64 - layout.bucket_bits, np.uint64)
        self._window_shift = np.array(64 - layout.bucket_bits - WINDOW_BITS, np.uint64)

    def find(self, keys: NDArray[np.int64]) -> NDArray[np.int64]:
        """Row of each key [n], -1 where there is none."""
        hashes = keys.view(np.uint64) * MULTIPLIER
        displacements = self._displacements.take((hashes >> self._bucket_shift).view(np.int64), mode="clip")
        hashes >>= self._window_shift
        hashes += displacements
        rows = self._slots.take(hashes.view(np.int64), mode="clip").astype(np.int64)
        # Few bytes compare sooner than few numbers.
        if self._keys.take(rows, mode="clip").tobytes() != keys.tobytes():
            self._sift(keys, displacements, rows)
        return rows

    def _sift(
        self, keys: NDArray[np.int64], displacements: NDArray[np.uint64], rows: NDArray[np.int64]
    ) -> None:
        """Set ``rows`` right where the key is another: there is no such key, or its bucket has no slots."""
        others = np.flatnonzero(self._keys.take(rows, mode="clip") != keys)
        rows[others] = -1
        hidden = others[displacements[others] == UNPLACED]
        if len(hidden):
            places = np.minimum(self._keys.searchsorted(keys[hidden]), len(self._keys) - 1)
            rows[hidden] = np.where(self._keys[places] == keys[hidden], places, -1)
