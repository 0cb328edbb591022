"""Reading the files of a segment; docs/format.md is their specification. No torch, no store."""

from __future__ import annotations

import json
import mmap
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from bedplate.errors import InternalError
from bedplate.wire.registry import KeyType

KEYS, VECTORS, TOMBSTONES, ATTRIBUTES = "keys", "vectors", "tombstones", "attributes"
PACKED = "packed"
"""The one file of a segment that a write made: all its columns."""
PACKED_FORMAT_VERSION = 1
_PACKED_MAGIC = b"BPPACKED"
_PACKED_HEAD = struct.Struct("<8sQ")
_PACKED_ALIGNMENT = 64


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


def map_file(path: Path) -> NDArray[np.uint8]:
    """The file's bytes, paged in when touched.

    The mapping is private: who writes into the array changes his copy of a page and never the file.
    """
    if path.stat().st_size == 0:
        return np.empty(0, np.uint8)
    with open(path, "rb") as file:
        return np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY), np.uint8)


def keys_of(data: NDArray[np.uint8], rows: int, key_type: KeyType) -> KeyColumn:
    """The sorted keys in the bytes of their column; no bytes: none."""
    if key_type == "int64":
        return data.view("<i8")
    if len(data) == 0:
        return StringColumn(np.zeros(1, np.int64), data)
    # Between the offsets and the heap lie the hashes and their rows, for who looks up single keys.
    return StringColumn(data[: 8 * (rows + 1)].view("<i8"), data[8 * (rows + 1) + 12 * rows :])


def pack_layout(manifest: bytes, sizes: Mapping[str, int]) -> tuple[bytes, dict[str, int], int]:
    """Of a packed segment: what it begins with, where each column begins, and its length.

    ``sizes`` are the columns' bytes, as ``files`` of the manifest gives them.
    """
    head = _PACKED_HEAD.pack(_PACKED_MAGIC, len(manifest)) + manifest
    offsets, end = {}, len(head)
    for name in sorted(sizes):
        offsets[name] = -(-end // _PACKED_ALIGNMENT) * _PACKED_ALIGNMENT
        end = offsets[name] + sizes[name]
    return head, offsets, end


def unpack(data: NDArray[np.uint8]) -> tuple[dict[str, Any], dict[str, NDArray[np.uint8]]]:
    """The manifest of a ``packed`` file and its columns by name, over the same memory; absent ones are empty.

    Raises:
        InternalError: it is damaged or of a later format.
    """
    magic, length = _PACKED_HEAD.unpack_from(data.data) if len(data) >= _PACKED_HEAD.size else (b"", 0)
    if magic != _PACKED_MAGIC:
        raise InternalError("the file is no packed segment: fetch it again, or restore it from a copy.")
    manifest = data[_PACKED_HEAD.size : _PACKED_HEAD.size + length].tobytes()
    document: dict[str, Any] = json.loads(manifest)
    if document["format_version"] != PACKED_FORMAT_VERSION:
        raise InternalError(
            f"the packed segment has format version {document['format_version']}, this release reads "
            f"{PACKED_FORMAT_VERSION}: read it with the release that wrote it or a later one."
        )
    sizes: dict[str, int] = document["files"]
    _, offsets, total = pack_layout(manifest, sizes)
    if total != len(data):
        raise InternalError(
            f"the packed segment has {len(data)} bytes instead of {total}: fetch it again, or restore it."
        )
    columns = {name: data[offsets[name] : offsets[name] + sizes[name]] for name in sizes}
    return document, {name: columns.get(name, data[:0]) for name in (KEYS, VECTORS, TOMBSTONES, ATTRIBUTES)}
