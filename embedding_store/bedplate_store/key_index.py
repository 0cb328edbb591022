"""A hash index over sorted int64 keys: one cache line read for each key asked for, in a dozen NumPy calls.

A bucket is 64 bytes, 8 entries of 8; an entry is the row in its low half and 31 bits of the key's hash in its
high half. The key itself is compared in the key column. docs/format.md is the specification of the file.
Shapes: n keys asked for, r rows, B buckets.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

SLOTS = 8
BUCKET_BYTES = 8 * SLOTS
ROWS_PER_BUCKET = 3
"""21 bytes a row; 2 of 1,000 keys find their bucket full and are searched for in the column."""
INDEXED_FROM_ROWS = 1 << 16
"""Fewer keys lie in the processor's cache, where a binary search is as fast."""
# Arrays, because NumPy takes longer over a scalar than over a hundred numbers.
_MULTIPLIER = np.array(0x9E3779B97F4A7C15, np.uint64)
_EMPTY = np.array(2**64 - 1, np.uint64)
_HALF = np.array(32, np.uint64)
_FINGERPRINT_SHIFT = np.array(16, np.uint64)
_FINGERPRINT_MASK = np.array(0x7FFFFFFF, np.uint64)  # so no entry is like an empty one
_KEYS_AT_ONCE = 1 << 18


def wants_index(keys: NDArray[np.int64]) -> bool:
    """Whether a column of these sorted keys has an index: many keys, with gaps between them."""
    rows = len(keys)
    return rows >= INDEXED_FROM_ROWS and int(keys[-1]) - int(keys[0]) != rows - 1


def index_bytes(rows: int) -> int:
    """Size of the index of so many keys."""
    return BUCKET_BYTES * max(1, rows // ROWS_PER_BUCKET)


def as_table(data: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """The bytes of an index as its buckets [B, 8]."""
    return data.view("<u8").reshape(-1, SLOTS)


def fill(table_B8: NDArray[np.uint64], keys: NDArray[np.int64]) -> None:
    """Fill ``table_B8`` [B, 8] with the index of the sorted ``keys`` [r]; memory does not grow with them.

    In each bucket the lower rows come first; a key whose bucket is full is left out.
    """
    table_B8[:] = _EMPTY
    count = np.array(len(table_B8), np.uint64)
    for start in range(0, len(keys), _KEYS_AT_ONCE):
        hashes, buckets = _hash(np.asarray(keys[start : start + _KEYS_AT_ONCE]), count)
        entries = hashes << _HALF
        entries |= np.arange(start, start + len(entries), dtype=np.uint64)
        order = np.argsort(buckets, kind="stable")
        buckets, entries = buckets[order], entries[order]
        # Their places: after what the bucket holds, one after the other.
        first = np.searchsorted(buckets, buckets)
        used = (table_B8[buckets] != _EMPTY).sum(axis=1)
        slots = used + np.arange(len(buckets)) - first
        fits = slots < SLOTS
        table_B8[buckets[fits], slots[fits]] = entries[fits]


class KeyIndex:
    """The index of a key column ``keys`` [r], over the file's ``table_B8`` [B, 8]."""

    def __init__(self, table_B8: NDArray[np.uint64], keys: NDArray[np.int64]) -> None:
        self._table = table_B8
        self._keys = keys
        self._count = np.array(len(table_B8), np.uint64)

    def find(self, keys: NDArray[np.int64]) -> NDArray[np.int64]:
        """Row of each key [n], -1 where there is none."""
        hashes, buckets = _hash(keys, self._count)
        entries_n8 = self._table.take(buckets, axis=0, mode="clip")
        halves = entries_n8.view(np.uint32)
        hits_n8 = halves[:, 1::2] == hashes.astype(np.uint32)[:, None]
        rows: NDArray[np.int64] = halves[:, ::2][hits_n8].astype(np.int64)
        # One hit for each key, and the right one: nearly always. Few bytes compare sooner than few numbers.
        if len(rows) == len(keys) and self._keys.take(rows, mode="clip").tobytes() == keys.tobytes():
            return rows
        return self._sift(keys, entries_n8, hits_n8, rows)

    def _sift(
        self,
        keys: NDArray[np.int64],
        entries_n8: NDArray[np.uint64],
        hits_n8: NDArray[np.bool_],
        rows: NDArray[np.int64],
    ) -> NDArray[np.int64]:
        """Some keys have no hit or several: those whose key is equal count, and full buckets hide keys."""
        found = np.full(len(keys), -1, np.int64)
        asked = np.nonzero(hits_n8)[0]
        equal = self._keys.take(rows, mode="clip") == keys[asked]
        found[asked[equal]] = rows[equal]
        hidden = np.flatnonzero((found < 0) & (entries_n8[:, -1] != _EMPTY))
        if len(hidden):
            places = np.minimum(self._keys.searchsorted(keys[hidden]), len(self._keys) - 1)
            found[hidden] = np.where(self._keys[places] == keys[hidden], places, -1)
        return found


def _hash(
    keys: NDArray[np.int64], bucket_count: NDArray[np.uint64]
) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """Fingerprints and buckets of ``keys``."""
    hashes = keys.view(np.uint64) * _MULTIPLIER
    places = hashes >> _HALF
    places *= bucket_count
    places >>= _HALF
    hashes >>= _FINGERPRINT_SHIFT
    hashes &= _FINGERPRINT_MASK
    return hashes, places.view(np.int64)
