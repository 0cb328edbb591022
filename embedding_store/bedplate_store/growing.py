"""Arrays that grow at their end without moving: views of every age stay valid and share one memory."""

from __future__ import annotations

import mmap
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

ScalarT = TypeVar("ScalarT", bound=np.generic)

_ROWS_MIN = 64
_MOVED_BYTES_MAX = 16 << 20
_RESERVED_BYTES = 8 << 30


def with_room(array: NDArray[ScalarT], rows: int) -> NDArray[ScalarT]:
    """``array`` grown to ``rows``, in place where its buffer has room: then old views keep their content.

    What the new rows hold is undefined. Only the longest view of a buffer may be grown.
    """
    buffer = array.base if isinstance(array.base, np.ndarray) else None
    if buffer is None or len(buffer) < rows:
        buffer = _buffer(array, rows)
        buffer[: len(array)] = array
    return buffer[:rows]


def _buffer(array: NDArray[ScalarT], rows: int) -> NDArray[ScalarT]:
    shape = (max(_ROWS_MIN, 2 * rows), *array.shape[1:])
    row_bytes = max(1, array.itemsize * int(np.prod(array.shape[1:])))
    if shape[0] * row_bytes <= _MOVED_BYTES_MAX:
        return np.empty(shape, array.dtype)
    # Measured: moving 600 MB to a larger buffer took 1.6 s. Memory that nobody touches costs only addresses,
    # so the buffer gets more of them than a space may have pending; it moves again only beyond that.
    shape = (max(shape[0], _RESERVED_BYTES // row_bytes), *array.shape[1:])
    try:
        return np.ndarray(shape, array.dtype, buffer=_reserved(shape[0] * row_bytes))
    except OSError:  # addresses are rationed on this machine (ulimit -v, vm.overcommit_memory=2)
        return np.empty((max(_ROWS_MIN, 2 * rows), *array.shape[1:]), array.dtype)


def _reserved(size: int) -> mmap.mmap:
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | getattr(mmap, "MAP_NORESERVE", 0)
    memory = mmap.mmap(-1, size, flags=flags)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        memory.madvise(mmap.MADV_HUGEPAGE)
    return memory
