"""Reading the files of a segment; docs/format.md is their specification. No torch, no store."""

from __future__ import annotations

import mmap
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from bedplate.codecs import Vectors
from bedplate.wire.registry import Dtype, KeyType

KEYS, VECTORS, TOMBSTONES = "keys", "vectors", "tombstones"


@dataclass(frozen=True, slots=True)
class StringColumn:
    """String keys as they lie in the file: key i is ``heap[offsets[i] : offsets[i + 1] - 1]``.

    Attributes:
        offsets: int64 [r + 1].
        heap: uint8, the keys in UTF-8, each followed by a zero byte.
    """

    offsets: NDArray[np.int64]
    heap: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def part(self, start: int, stop: int) -> StringColumn:
        """Keys ``start`` to ``stop``, over the same memory."""
        return StringColumn(self.offsets[start : stop + 1], self.heap)

    def to_arrow(self) -> pa.LargeStringArray:
        """The keys without their zero bytes; a copy."""
        offsets, heap = pa.py_buffer(np.ascontiguousarray(self.offsets, np.int64)), pa.py_buffer(self.heap)
        ended = pa.Array.from_buffers(pa.large_binary(), len(self), [None, offsets, heap])
        return pc.binary_slice(ended, 0, -1).cast(pa.large_string())


KeyColumn: TypeAlias = NDArray[np.int64] | StringColumn


def map_file(path: Path | None) -> NDArray[np.uint8]:
    """The file's bytes, paged in when touched; None: no bytes.

    The mapping is private: who writes into the array changes his copy of a page and never the file.
    """
    if path is None or path.stat().st_size == 0:
        return np.empty(0, np.uint8)
    with open(path, "rb") as file:
        return np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY), np.uint8)


def read_keys(path: Path | None, rows: int, key_type: KeyType) -> KeyColumn:
    """The sorted keys of a ``keys`` or ``tombstones`` file; None: of a file that is absent."""
    data = map_file(path)
    if key_type == "int64":
        return data.view("<i8")
    if path is None:
        return StringColumn(np.zeros(1, np.int64), data)
    # Between the offsets and the heap lie the hashes and their rows, for who looks up single keys.
    return StringColumn(data[: 8 * (rows + 1)].view("<i8"), data[8 * (rows + 1) + 12 * rows :])


def read_vectors(path: Path | None, rows: int, dim: int, dtype: Dtype) -> Vectors:
    """The vectors [rows, dim] of a ``vectors`` file."""
    vectors: Vectors = map_file(path).view(np.dtype(dtype).newbyteorder("<")).reshape(rows, dim)
    return vectors
