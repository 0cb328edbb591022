"""Packed segments: all columns of a write in one object: one sync for the writer, one request for a reader.

``segments/<digest>/packed``, named by the SHA-256 of its bytes; docs/format.md is the specification.
Shapes: r rows stored, d the dimension.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from bedplate.segment_files import (
    ATTRIBUTES,
    KEYS,
    PACKED,
    PACKED_FORMAT_VERSION,
    TOMBSTONES,
    VECTORS,
    pack_layout,
    unpack,
)
from bedplate.stored_vectors import Storage, StoredRows
from bedplate.wire.registry import Dtype, KeyType
from bedplate_store.attributes import read, to_bytes
from bedplate_store.keys import Column, build_column, concatenate
from bedplate_store.mapping import local_file, map_file
from bedplate_store.objects import ObjectStore
from bedplate_store.objects.port import missing
from bedplate_store.segment_files import (
    FileInfo,
    SegmentInfo,
    column_bytes,
    column_of,
    object_key,
)


def write_packed(
    objects: ObjectStore,
    *,
    column: Column,
    vectors: StoredRows,
    order: NDArray[np.int64] | None,
    tombstones: Column,
    key_type: KeyType,
    dim: int,
    dtype: Dtype,
    attributes: pa.Table | None = None,
) -> SegmentInfo:
    """Store the rows of ``column`` [r] and the tombstones; durable when this returns.

    ``order`` [r] are the rows of ``vectors``, encoded, that belong to the column; None: all, as they are. The
    ``attributes`` [r] are in the order of the column.
    """
    rows, deleted = len(column), len(tombstones)
    storage = Storage(dtype, dim)
    files: dict[str, bytes | memoryview] = {}
    if rows:
        files[KEYS] = column_bytes(column)
    if deleted:
        files[TOMBSTONES] = column_bytes(tombstones)
    if attributes is not None:
        files[ATTRIBUTES] = to_bytes(attributes)
    sizes = {name: len(data) for name, data in files.items()}
    if rows:
        sizes[VECTORS] = rows * storage.row_bytes
    manifest = _manifest(sizes, rows, deleted, key_type, dim, dtype)
    head, offsets, total = pack_layout(manifest, sizes)
    packed = np.zeros(total, np.uint8)
    _put(packed, 0, head)
    for name, data in files.items():
        _put(packed, offsets[name], data)
    if rows:
        end = offsets[VECTORS] + sizes[VECTORS]
        target = storage.of_bytes(packed[offsets[VECTORS] : end])
        if order is None:
            target[:] = vectors
        else:
            np.take(vectors, order, axis=0, out=target, mode="clip")
    digest = hashlib.sha256(packed.data).hexdigest()
    objects.put(object_key(digest, PACKED), packed.data)
    return SegmentInfo(digest, rows, deleted, sum(sizes.values()), key_type, dim, dtype)


def is_packed(objects: ObjectStore, digest: str) -> bool:
    """Whether there is a packed segment of this digest."""
    return objects.size(object_key(digest, PACKED)) is not None


def open_packed(
    objects: ObjectStore, digest: str, cache_dir: Path
) -> tuple[SegmentInfo, Column, StoredRows, Column, pa.Table | None] | None:
    """Info, keys, vectors, tombstones, attributes, mapped into memory; None: there is no packed segment.

    Raises:
        InternalError: the object is damaged or of a later format.
    """
    key = object_key(digest, PACKED)
    size = objects.size(key)
    if size is None:
        return None
    # Read once from front to back, into an overlay or a merge.
    data = map_file(local_file(objects, key, cache_dir, bytes_=size, sha256=digest), "sequential")
    document, columns = unpack(data)
    info = SegmentInfo(
        digest,
        document["rows"],
        document["tombstones"],
        sum(document["files"].values()),
        document["key_type"],
        document["dim"],
        document["dtype"],
    )
    return (
        info,
        column_of(columns[KEYS], info.rows, info.key_type),
        info.storage.of_bytes(columns[VECTORS]),
        column_of(columns[TOMBSTONES], info.tombstones, info.key_type),
        read(columns[ATTRIBUTES]),
    )


def packed_file(objects: ObjectStore, info: SegmentInfo) -> FileInfo:
    """Size and digest of a packed segment's one file.

    Raises:
        NotFound: there is no such segment.
    """
    key = object_key(info.digest, PACKED)
    size = objects.size(key)
    if size is None:
        raise missing(key)
    return FileInfo(size, info.digest)


def empty_column(key_type: KeyType) -> Column:
    """A column without keys."""
    return build_column(concatenate([], key_type))


def _manifest(
    sizes: Mapping[str, int], rows: int, tombstones: int, key_type: KeyType, dim: int, dtype: Dtype
) -> bytes:
    document = {
        "format": "bedplate-packed-segment",
        "format_version": PACKED_FORMAT_VERSION,
        "key_type": key_type,
        "rows": rows,
        "tombstones": tombstones,
        "dim": dim,
        "dtype": dtype,
        "files": sizes,
    }
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode("ascii")


def _put(packed: NDArray[np.uint8], offset: int, data: bytes | memoryview) -> None:
    packed[offset : offset + len(data)] = np.frombuffer(data, np.uint8)
