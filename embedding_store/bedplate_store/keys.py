"""Key columns: int64 or string keys, sorted, unique, and found without touching Python objects one by one.

String keys are UTF-8 in one heap, each ended by a zero byte, with ``offsets[i]`` the start of key i. The zero
byte keeps every slice non-empty (so ``reduceat`` works on them) and does not change the bytewise order.
Shapes: n keys asked for, r keys (rows) in a column.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from bedplate.errors import InvalidRequest, KeyTypeMismatch
from bedplate.wire.registry import KeyType
from bedplate_store.key_index import KeyIndex

KEY_BYTES_MAX = 1024  # 256 characters of four bytes
_INT64_MAX = 2**63 - 1
_HASH_BASE = 0x9E3779B97F4A7C15 | 1  # odd, so that its powers never vanish modulo 2**64


def _powers(count: int) -> NDArray[np.uint64]:
    """The first ``count`` powers of the hash's base, modulo 2**64."""
    return np.power(np.uint64(_HASH_BASE), np.arange(1, count + 1, dtype=np.uint64))


_POWERS = _powers(KEY_BYTES_MAX + 1)

RawKeys: TypeAlias = NDArray[np.int64] | Sequence[int] | Sequence[str]
"""Keys as callers pass them."""


@dataclass(frozen=True, slots=True)
class StringKeys:
    """``heap`` uint8, ``offsets`` int64 [n + 1]; key i is ``heap[offsets[i] : offsets[i + 1] - 1]``."""

    heap: NDArray[np.uint8]
    offsets: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.offsets) - 1


Keys: TypeAlias = NDArray[np.int64] | StringKeys
"""Keys as the store works on them; both know ``len``."""


def parse_keys(keys: RawKeys, key_type: KeyType) -> Keys:
    """Read what a caller asks for.

    Raises:
        KeyTypeMismatch: the keys are not of ``key_type``.
    """
    return _parse_int64(keys) if key_type == "int64" else _parse_strings(keys)


def check_writable(keys: Keys) -> None:
    """Raise InvalidRequest for a string key that is empty, too long or no text; reads do not find those."""
    if not isinstance(keys, StringKeys):
        return
    lengths = np.diff(keys.offsets) - 1
    bad = np.flatnonzero((lengths < 1) | (lengths > KEY_BYTES_MAX))
    if len(bad):
        raise InvalidRequest(
            f"the key of row {bad[0]} has {lengths[bad[0]]} bytes: send 1 to {KEY_BYTES_MAX} bytes of UTF-8.",
            row=int(bad[0]),
        )
    try:
        keys.heap.tobytes().decode()
    except UnicodeDecodeError:
        raise InvalidRequest(
            "a key holds half of a surrogate pair: send keys as valid Unicode text."
        ) from None


def to_python(keys: Keys) -> list[int] | list[str]:
    """The keys as Python values."""
    if isinstance(keys, StringKeys):
        text = keys.heap.tobytes()
        ends = keys.offsets.tolist()
        return [text[start : end - 1].decode("utf-8", "surrogatepass") for start, end in pairwise(ends)]
    listed: list[int] = keys.tolist()
    return listed


def take(keys: Keys, rows: NDArray[np.int64]) -> Keys:
    """The keys at ``rows``, in that order."""
    if not isinstance(keys, StringKeys):
        return keys[rows]
    starts = keys.offsets[rows]
    lengths = keys.offsets[rows + 1] - starts
    offsets = _offsets(lengths)
    return StringKeys(keys.heap[_spans(starts, lengths, offsets)], offsets)


def concatenate(parts: Sequence[Keys], key_type: KeyType) -> Keys:
    """All keys of ``parts``, in order."""
    if key_type == "int64":
        arrays = [part for part in parts if not isinstance(part, StringKeys)]
        return np.concatenate([np.empty(0, np.int64), *arrays])
    strings = [part for part in parts if isinstance(part, StringKeys)]
    heap = np.concatenate([np.empty(0, np.uint8), *(part.heap for part in strings)])
    return StringKeys(heap, _offsets(np.concatenate([np.empty(0, np.int64), *map(_lengths, strings)])))


def sort_last_wins(keys: Keys) -> NDArray[np.int64]:
    """Positions of the distinct keys in ascending (strings: bytewise) order, each at its last occurrence."""
    if len(keys) == 0:
        return np.empty(0, np.int64)
    if not isinstance(keys, StringKeys):
        if len(keys) > 1 and bool(np.all(keys[1:] > keys[:-1])):
            return np.arange(len(keys))
        order = np.argsort(keys, kind="stable")
        ordered = keys[order]
        last = np.append(ordered[1:] != ordered[:-1], True)
        distinct: NDArray[np.int64] = order[last]
        return distinct
    values = as_arrow(keys)
    sorted_rows = pc.sort_indices(values)  # stable
    ordered_values = values.take(sorted_rows)
    differs = pc.not_equal(ordered_values[1:], ordered_values[:-1]).to_numpy(zero_copy_only=False)
    distinct = sorted_rows.to_numpy()[np.append(differs, True)].astype(np.int64)
    return distinct


def hash_keys(keys: StringKeys) -> NDArray[np.uint64]:
    """64-bit hashes [n]: a polynomial over the key's bytes, mixed. Part of the format: docs/format.md."""
    lengths = _lengths(keys)
    if len(lengths) == 0:
        return np.empty(0, np.uint64)
    longest = int(lengths.max())
    powers = _POWERS if longest <= len(_POWERS) else _powers(longest)
    position = np.arange(len(keys.heap)) - np.repeat(keys.offsets[:-1], lengths)
    terms = (keys.heap.astype(np.uint64) + np.uint64(1)) * powers[position]
    mixed = np.add.reduceat(terms, keys.offsets[:-1])
    mixed ^= mixed >> np.uint64(30)
    mixed *= np.uint64(0xBF58476D1CE4E5B9)
    mixed ^= mixed >> np.uint64(27)
    mixed *= np.uint64(0x94D049BB133111EB)
    mixed ^= mixed >> np.uint64(31)
    return mixed


class Int64Column:
    """Sorted unique int64 keys [r]; ``index`` is their index, if they have one."""

    def __init__(self, keys: NDArray[np.int64], index: KeyIndex | None = None) -> None:
        self.keys: Keys = keys
        self.values = keys
        self._index = index
        rows = len(keys)
        # Ids without a gap are the common case (a catalogue numbered from 1), and need no search at all.
        self._dense = rows > 0 and int(keys[-1]) - int(keys[0]) == rows - 1
        self._first = int(keys[0]) if rows else 0

    def __len__(self) -> int:
        return len(self.values)

    def find(self, keys: Keys) -> NDArray[np.int64]:
        """Row of each key [n] int64, -1 where there is none."""
        assert not isinstance(keys, StringKeys)
        column = self.values
        if len(column) == 0:
            return np.full(len(keys), -1, np.int64)
        if self._dense:
            # A difference that wraps is, taken as unsigned, no row either.
            rows = keys - self._first
            outside = rows.view(np.uint64) >= len(column)
            if outside.any():
                rows[outside] = -1
            return rows
        if self._index is not None:
            return self._index.find(np.ascontiguousarray(keys))
        rows = np.searchsorted(column, keys)
        np.minimum(rows, len(column) - 1, out=rows)
        return np.where(column[rows] == keys, rows, -1)


class StringColumn:
    """Sorted unique string keys [r] with their hashes in ascending order and the row of each hash."""

    def __init__(self, keys: StringKeys, hashes: NDArray[np.uint64], hash_rows: NDArray[np.uint32]) -> None:
        self.keys: Keys = keys
        self.strings = keys
        self.hashes = hashes
        self.hash_rows = hash_rows

    @classmethod
    def build(cls, keys: StringKeys) -> StringColumn:
        """The column of sorted unique ``keys``."""
        hashes = hash_keys(keys)
        order = np.argsort(hashes, kind="stable")
        return cls(keys, hashes[order], order.astype(np.uint32))

    def __len__(self) -> int:
        return len(self.strings)

    def find(self, keys: Keys) -> NDArray[np.int64]:
        """Row of each key [n] int64, -1 where there is none. The bytes are compared, not the hashes alone."""
        assert isinstance(keys, StringKeys)
        found = np.full(len(keys), -1, np.int64)
        if len(self) == 0 or len(keys) == 0:
            return found
        hashes = hash_keys(keys)
        slots = np.searchsorted(self.hashes, hashes)
        pending = np.arange(len(keys))
        while len(pending):
            at = slots[pending]
            same = self.hashes[np.minimum(at, len(self) - 1)] == hashes[pending]
            same &= at < len(self)
            pending, at = pending[same], at[same]
            rows = self.hash_rows[at].astype(np.int64)
            equal = self._equal(rows, keys, pending)
            found[pending[equal]] = rows[equal]
            # Another key with the same hash: look at the next slot.
            pending = pending[~equal]
            slots[pending] += 1
        return found

    def _equal(
        self, rows: NDArray[np.int64], keys: StringKeys, asked: NDArray[np.int64]
    ) -> NDArray[np.bool_]:
        """Whether the column's key at ``rows[i]`` is the asked key ``asked[i]``, byte for byte."""
        starts, theirs = self.strings.offsets[rows], keys.offsets[asked]
        lengths = keys.offsets[asked + 1] - theirs
        equal: NDArray[np.bool_] = self.strings.offsets[rows + 1] - starts == lengths
        if not equal.any():
            return equal
        lengths, starts, theirs = lengths[equal], starts[equal], theirs[equal]
        offsets = _offsets(lengths)
        ours_bytes = self.strings.heap[_spans(starts, lengths, offsets)]
        their_bytes = keys.heap[_spans(theirs, lengths, offsets)]
        equal[equal] = np.logical_and.reduceat(ours_bytes == their_bytes, offsets[:-1])
        return equal


Column: TypeAlias = Int64Column | StringColumn


def build_column(keys: Keys) -> Column:
    """The column of sorted unique ``keys``."""
    return StringColumn.build(keys) if isinstance(keys, StringKeys) else Int64Column(keys)


def _parse_int64(keys: RawKeys) -> NDArray[np.int64]:
    array = np.asarray(keys)
    fits = array.dtype.kind == "i" or (array.dtype.kind == "u" and int(array.max(initial=0)) <= _INT64_MAX)
    if not fits and array.size:
        raise KeyTypeMismatch("this space has int64 keys: send integers between -2**63 and 2**63 - 1.")
    if array.ndim != 1:
        raise KeyTypeMismatch(f"keys are one list, not {array.ndim}-dimensional.")
    return array.astype(np.int64, copy=False)


def _parse_strings(keys: RawKeys) -> StringKeys:
    listed: list[Any] = keys.tolist() if isinstance(keys, np.ndarray) else list(keys)
    try:
        text = "\0".join([*listed, ""])
    except TypeError:
        raise KeyTypeMismatch("this space has string keys: send each key as a string.") from None
    if text.isascii():
        lengths = np.fromiter(map(len, listed), np.int64, len(listed))
        heap = np.frombuffer(text.encode(), np.uint8)
    else:
        parts = [key.encode("utf-8", "surrogatepass") for key in listed]
        lengths = np.fromiter(map(len, parts), np.int64, len(parts))
        heap = np.frombuffer(b"\0".join([*parts, b""]), np.uint8)
    return StringKeys(heap, _offsets(lengths + 1))


def as_arrow(keys: StringKeys) -> Any:
    """The keys as an Arrow array of large_binary, over the same memory."""
    offsets = np.ascontiguousarray(keys.offsets, np.int64)
    return pa.Array.from_buffers(
        pa.large_binary(), len(keys), [None, pa.py_buffer(offsets), pa.py_buffer(keys.heap)]
    )


def _lengths(keys: StringKeys) -> NDArray[np.int64]:
    return np.diff(keys.offsets)


def _offsets(lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    offsets = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return offsets


def _spans(
    starts: NDArray[np.int64], lengths: NDArray[np.int64], offsets: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Indices of the bytes of every slice ``[start, start + length)``, one after the other."""
    return np.repeat(starts - offsets[:-1], lengths) + np.arange(offsets[-1])
