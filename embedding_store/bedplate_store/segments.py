"""Segments: immutable, content-addressed sets of columns. docs/format.md is their specification.

A segment lies under ``segments/<digest>/``. Its digest is the SHA-256 of its manifest, which holds the
SHA-256 of every other file, so the same content has the same digest wherever and whenever it was made.
Shapes: n rows given, r rows stored, d the dimension.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from bedplate.codecs import Vectors as VectorArray
from bedplate.errors import DimensionMismatch, InvalidRequest, NonFiniteVectors, NotFound
from bedplate.segment_files import ATTRIBUTES
from bedplate.stored_vectors import LARGEST, Storage, StoredRows
from bedplate.wire.registry import Dtype, KeyType
from bedplate_store.attributes import read, to_bytes
from bedplate_store.keys import (
    Column,
    Keys,
    RawKeys,
    build_column,
    check_writable,
    parse_keys,
    sort_last_wins,
    take,
)
from bedplate_store.mapping import local_file, map_file
from bedplate_store.objects import ObjectStore
from bedplate_store.packed_segments import is_packed, open_packed
from bedplate_store.segment_files import (
    KEY_INDEX,
    MANIFEST,
    SEGMENTS_PREFIX,
    SegmentInfo,
    column_bytes,
    describe,
    file_info,
    index_bytes_of,
    map_or_empty,
    object_key,
    read_column,
    read_manifest,
)

__all__ = [
    "SEGMENTS_PREFIX",
    "Segment",
    "SegmentInfo",
    "VectorArray",
    "open_segment",
    "segment_is_whole",
    "validate_vectors",
    "write_segment",
]

_FEW_NUMBERS = 1 << 13  # one thread of BLAS takes so many


@dataclass(frozen=True)
class Segment:
    """An open segment, mapped from its files.

    Attributes:
        column: the sorted keys [r].
        vectors: the stored rows, read-only, advised for random access; ``info.storage`` decodes them.
        tombstones: the sorted keys this segment deletes from older ones.
        attributes: the rows' attributes [r], mapped; None where there are none.
    """

    info: SegmentInfo
    column: Column
    vectors: StoredRows
    tombstones: Keys
    vectors_path: Path | None
    attributes: pa.Table | None = None

    @property
    def keys(self) -> Keys:
        return self.column.keys

    def find(self, keys: Keys) -> NDArray[np.int64]:
        """Row of each key [n] int64, -1 where this segment has none."""
        return self.column.find(keys)

    @cached_property
    def scope(self) -> object:
        """Stands for the rows in a filter cache, without keeping them in memory."""
        return object()

    @cached_property
    def scan(self) -> StoredRows:
        """The same vectors through a mapping advised for reading from front to back."""
        if self.vectors_path is None:
            return self.vectors
        return self.info.storage.of_bytes(map_file(self.vectors_path, "sequential"))


def validate_vectors(vectors: Any, dim: int, dtype: Dtype = "float32") -> VectorArray:
    """Return ``vectors`` [n, dim] in ``dtype``, C-contiguous; it is a copy only where it must be.

    For int8 and int4 they are float32: :meth:`~bedplate.stored_vectors.Storage.encode` compresses them.

    Raises:
        DimensionMismatch: not [n, dim], or rows of different lengths.
        NonFiniteVectors: NaN or infinity, also one made by the cast to ``dtype``, or numbers too large to be
            compressed; names the first bad row.
    """
    # The usual query, with a third of the calls: all of them take a fifth of the time of its search.
    usual = isinstance(vectors, np.ndarray) and vectors.dtype == dtype == "float32"
    if usual and vectors.shape[1:] == (dim,) and vectors.flags.c_contiguous and _all_finite(vectors):
        checked: VectorArray = vectors
        return checked
    try:
        array = np.asarray(vectors)
        if array.dtype.kind not in "fiu":
            array = array.astype(np.float64)
    except (ValueError, TypeError):
        raise DimensionMismatch(f"each vector is a list of {dim} numbers; these are not.", dim=dim) from None
    if array.shape == (0,):
        array = array.reshape(0, dim)
    if array.ndim != 2 or array.shape[1] != dim:
        raise DimensionMismatch(
            f"the space has dimension {dim}, the vectors have shape {list(array.shape)}: send [rows, {dim}].",
            dim=dim,
        )
    with np.errstate(over="ignore"):
        compressed = Storage(dtype, dim).compressed
        cast = np.ascontiguousarray(array, dtype=np.dtype("float32" if compressed else dtype))
    if compressed and cast.size and not float(np.abs(cast).max()) <= LARGEST:
        fits = (np.abs(cast) <= LARGEST).all(axis=1)  # of NaN nothing holds
        _raise_non_finite(array, int(np.flatnonzero(~fits)[0]), dtype)
    if not _all_finite(cast):
        finite = np.isfinite(cast).all(axis=1)
        _raise_non_finite(array, int(np.flatnonzero(~finite)[0]), dtype)
    return cast


def _all_finite(vectors: VectorArray) -> bool:
    few = vectors.dtype == np.float32 and vectors.size <= _FEW_NUMBERS
    if few and math.isfinite(np.vdot(vectors, vectors)):
        return True  # so is each of them, told in a third of the time; where squares overflow we look closer
    if vectors.dtype != np.float16 or vectors.size == 0:
        return bool(np.isfinite(vectors).all())
    # Infinity and NaN have the largest exponent. 10,000 x 256: 0.2 ms where np.isfinite takes 2.4.
    return int((vectors.view(np.uint16) & 0x7FFF).max()) < 0x7C00


def write_segment(
    objects: ObjectStore,
    *,
    keys: RawKeys,
    vectors: Any,
    dtype: Dtype,
    key_type: KeyType,
    tombstones: RawKeys | None = None,
    attributes: pa.Table | None = None,
) -> SegmentInfo:
    """Write a segment of ``keys`` [n] and ``vectors`` [n, d], in any order; the last of equal keys counts.

    ``attributes`` [n] as :func:`bedplate_store.attributes.parse` gives them.
    ``tombstones`` are keys whose rows in older segments no longer exist. A segment of tombstones alone takes
    vectors of shape [0, d]. When this returns the segment is durable; writing the same content again changes
    nothing but its age.

    Raises:
        DimensionMismatch, NonFiniteVectors: see :func:`validate_vectors`.
        KeyTypeMismatch: the keys are not of ``key_type``.
        InvalidRequest: as many keys as vectors are needed; a key both written and deleted; an illegal key.
    """
    array = np.asarray(vectors)
    dim = array.shape[1] if array.ndim == 2 else 0
    rows = Storage(dtype, dim).encode(validate_vectors(array, dim, dtype))
    parsed = parse_keys(keys, key_type)
    deleted = parse_keys([] if tombstones is None else tombstones, key_type)
    check_writable(parsed)
    check_writable(deleted)
    if len(parsed) != len(rows):
        raise InvalidRequest(f"{len(parsed)} keys for {len(rows)} vectors: send one vector for each key.")
    order = sort_last_wins(parsed)
    if len(order) != len(parsed) or (order != np.arange(len(order))).any():
        parsed, rows = take(parsed, order), rows[order]
        attributes = None if attributes is None else attributes.take(pa.array(order))
    column = build_column(parsed)
    deleted = take(deleted, sort_last_wins(deleted))
    if len(deleted) and (column.find(deleted) >= 0).any():
        raise InvalidRequest("a key is both written and deleted in one segment: send it in one of the two.")
    files: dict[str, bytes | memoryview] = {}
    if len(rows):
        files = {"keys": column_bytes(column), "vectors": rows.data.cast("B")}
        index = index_bytes_of(column)
        if index is not None:
            files[KEY_INDEX] = index
        if attributes is not None:
            files[ATTRIBUTES] = to_bytes(attributes)
    if len(deleted):
        files["tombstones"] = column_bytes(build_column(deleted))
    infos = {name: file_info(data) for name, data in files.items()}
    info, manifest = describe(infos, len(rows), len(deleted), key_type, dim, dtype)
    for name, data in files.items():
        objects.put(object_key(info.digest, name), data)
    objects.put(
        object_key(info.digest, MANIFEST), manifest
    )  # last: a segment without a manifest does not exist
    return info


def open_segment(objects: ObjectStore, digest: str, cache_dir: Path) -> Segment:
    """Map the segment into memory; what is not on this machine is fetched into ``cache_dir`` once.

    Raises:
        NotFound: there is no such segment.
        ObjectDamaged: its files are damaged.
    """
    packed = open_packed(objects, digest, cache_dir)
    if packed is not None:
        info, column, vectors, tombstones, attributes = packed
        return Segment(info, column, vectors, tombstones.keys, vectors_path=None, attributes=attributes)
    info, files = read_manifest(objects, digest)

    def path(name: str) -> Path | None:
        if name not in files:
            return None
        file = files[name]
        return local_file(objects, object_key(digest, name), cache_dir, bytes_=file.bytes, sha256=file.sha256)

    vectors_path = path("vectors")
    return Segment(
        info=info,
        column=read_column(path("keys"), info.rows, info.key_type, path(KEY_INDEX)),
        vectors=info.storage.of_bytes(map_or_empty(vectors_path)),
        tombstones=read_column(path("tombstones"), info.tombstones, info.key_type).keys,
        vectors_path=vectors_path,
        attributes=read(map_or_empty(path(ATTRIBUTES))),
    )


def segment_is_whole(objects: ObjectStore, info: SegmentInfo) -> bool:
    """Whether every file of the segment lies in the object store."""
    if is_packed(objects, info.digest):
        return True
    try:
        _, files = read_manifest(objects, info.digest)
    except NotFound:
        return False
    return all(objects.size(object_key(info.digest, name)) == file.bytes for name, file in files.items())


def _raise_non_finite(given: NDArray[Any], row: int, dtype: Dtype) -> NoReturn:
    if np.isfinite(given[row].astype(np.float64)).all():
        largest = float(np.abs(given[row].astype(np.float64)).max())
        raise NonFiniteVectors(
            f"row {row} holds {largest:g}, which overflows {dtype}: scale it or use a float32 space.",
            row=row,
        )
    raise NonFiniteVectors(f"row {row} holds NaN or infinity: send finite numbers.", row=row)
