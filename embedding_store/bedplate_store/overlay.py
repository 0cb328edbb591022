"""The writes that came after a snapshot, held in memory over it.

Slots are appended and never change, so overlays of different ages share one buffer, and a reader that holds
an old overlay goes on seeing exactly what it saw. Shapes: w keys written, s slots, d the dimension.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bedplate.wire.registry import Dtype, KeyType
from bedplate_store.keys import Column, Keys, build_column, concatenate, sort_last_wins, take
from bedplate_store.segments import Segment, VectorArray

_CAPACITY_MIN = 64


@dataclass(frozen=True, slots=True)
class Overlay:
    """Attributes:
    column: the keys written or deleted since the snapshot [w], sorted.
    slots: the slot of each key's vector [w] int64, -1 where the key is deleted.
    vectors: [s, d] in the storage dtype; some slots are superseded.
    exact: the same as float32 [s, d], because NumPy casts float16 too slowly to do it for each search; where
        the storage dtype is float32, ``vectors`` itself.
    owners: which position of ``column`` each slot belongs to [s] int64, -1 where it is superseded.
    """

    key_type: KeyType
    column: Column
    slots: NDArray[np.int64]
    vectors: VectorArray
    exact: NDArray[np.float32]
    owners: NDArray[np.int64]

    @classmethod
    def empty(cls, key_type: KeyType, dim: int, dtype: Dtype) -> Overlay:
        none = np.empty(0, np.int64)
        exact = np.empty((0, dim), np.float32)
        vectors: VectorArray = exact if dtype == "float32" else np.empty((0, dim), dtype)
        return cls(key_type, build_column(concatenate([], key_type)), none, vectors, exact, none)

    def __len__(self) -> int:
        return len(self.column)

    @property
    def keys(self) -> Keys:
        return self.column.keys

    def extended(self, writes: Sequence[Segment]) -> Overlay:
        """This overlay with ``writes``, oldest first, on top.

        Only the newest overlay of a buffer may be extended, and by one thread at a time.
        """
        if not writes:
            return self
        used = len(self.vectors)
        total = used + sum(len(write.vectors) for write in writes)
        vectors = _with_room(self.vectors, total)
        exact = vectors if self.vectors is self.exact else _with_room(self.exact, total)
        parts: list[Keys] = [self.keys]
        slots: list[NDArray[np.int64]] = [self.slots]
        for write in writes:
            count = len(write.vectors)
            vectors[used : used + count] = write.vectors
            if exact is not vectors:
                exact[used : used + count] = write.vectors
            parts += [write.keys, write.tombstones]
            slots += [np.arange(used, used + count), np.full(len(write.tombstones), -1)]
            used += count
        keys, all_slots = concatenate(parts, self.key_type), np.concatenate(slots)
        newest = sort_last_wins(keys)
        kept = all_slots[newest]
        owners = np.full(total, -1)
        owners[kept[kept >= 0]] = np.flatnonzero(kept >= 0)
        return Overlay(self.key_type, build_column(take(keys, newest)), kept, vectors, exact, owners)


def _with_room(array: NDArray[np.floating], rows: int) -> NDArray[np.floating]:
    """``array`` grown to ``rows``, in place where its buffer has room: then old views keep their content."""
    buffer = array.base if isinstance(array.base, np.ndarray) else None
    if buffer is None or len(buffer) < rows:
        buffer = np.empty((max(_CAPACITY_MIN, 2 * rows), array.shape[1]), array.dtype)
        buffer[: len(array)] = array
    return buffer[:rows]
