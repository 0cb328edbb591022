"""The files of a segment, byte for byte; docs/format.md says the same in prose."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bedplate.errors import InternalError
from bedplate.stored_vectors import Storage
from bedplate.wire.registry import Dtype, KeyType
from bedplate_store.key_index import KeyIndex, Layout, wants_index
from bedplate_store.key_index_building import index_of
from bedplate_store.keys import Column, Int64Column, StringColumn, StringKeys
from bedplate_store.mapping import map_file, sha256_file
from bedplate_store.objects import ObjectStore

SEGMENTS_PREFIX = "segments/"
MANIFEST = "manifest.json"
KEY_INDEX = "key_hash"
_FORMAT = "bedplate-segment"
_FORMAT_VERSION = 1


@dataclass(frozen=True, slots=True)
class SegmentInfo:
    """What a segment holds. ``bytes`` counts its files without the manifest."""

    digest: str
    rows: int
    tombstones: int
    bytes: int
    key_type: KeyType
    dim: int
    dtype: Dtype

    @property
    def storage(self) -> Storage:
        """How its vectors are stored."""
        return Storage(self.dtype, self.dim)

    def to_json(self) -> dict[str, Any]:
        """As a JSON document; :meth:`from_json` reads it back."""
        return asdict(self)

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> SegmentInfo:
        return cls(**{field.name: document[field.name] for field in fields(cls)})


@dataclass(frozen=True, slots=True)
class FileInfo:
    """Size and lower-case hex SHA-256 of one file of a segment."""

    bytes: int
    sha256: str


def file_info(data: bytes | memoryview) -> FileInfo:
    """Size and digest of a file with this content."""
    return FileInfo(memoryview(data).nbytes, hashlib.sha256(data).hexdigest())


def object_key(digest: str, name: str) -> str:
    """Key of a segment's file in the object store."""
    return f"{SEGMENTS_PREFIX}{digest}/{name}"


def describe(
    files: Mapping[str, FileInfo], rows: int, tombstones: int, key_type: KeyType, dim: int, dtype: Dtype
) -> tuple[SegmentInfo, bytes]:
    """The segment's info and its manifest, whose SHA-256 is the segment's digest."""
    document = {
        "format": _FORMAT,
        "format_version": _FORMAT_VERSION,
        "key_type": key_type,
        "rows": rows,
        "tombstones": tombstones,
        "dim": dim,
        "dtype": dtype,
        "files": {name: asdict(file) for name, file in files.items()},
    }
    manifest = json.dumps(document, sort_keys=True, separators=(",", ":")).encode("ascii")
    digest = hashlib.sha256(manifest).hexdigest()
    total = sum(file.bytes for file in files.values())
    return SegmentInfo(digest, rows, tombstones, total, key_type, dim, dtype), manifest


def read_manifest(objects: ObjectStore, digest: str) -> tuple[SegmentInfo, dict[str, FileInfo]]:
    """The manifest of a segment, verified against its digest.

    Raises:
        NotFound: there is no such segment.
        ObjectDamaged: the manifest is not the one that was written.
        InternalError: it is of a later format.
    """
    document = json.loads(objects.get(object_key(digest, MANIFEST), sha256=digest))
    if document["format_version"] != _FORMAT_VERSION:
        raise InternalError(
            f"segment {digest} has format version {document['format_version']}, this release reads "
            f"{_FORMAT_VERSION}: read it with the release that wrote it or a later one."
        )
    files = {name: FileInfo(**file) for name, file in document.pop("files").items()}
    total = sum(file.bytes for file in files.values())
    return SegmentInfo.from_json({**document, "digest": digest, "bytes": total}), files


def column_bytes(column: Column) -> bytes:
    """The file of a key column."""
    if isinstance(column, Int64Column):
        return column.values.astype("<i8", copy=False).tobytes()
    return b"".join(
        (
            column.strings.offsets.astype("<i8", copy=False).tobytes(),
            column.hashes.astype("<u8", copy=False).tobytes(),
            column.hash_rows.astype("<u4", copy=False).tobytes(),
            column.strings.heap.tobytes(),
        )
    )


def read_column(path: Path | None, rows: int, key_type: KeyType, index_path: Path | None = None) -> Column:
    """The key column of ``rows`` keys in a file, with its index; None: no keys, no index."""
    column = column_of(map_or_empty(path), rows, key_type)
    if index_path is None or not isinstance(column, Int64Column):
        return column
    return Int64Column(column.values, KeyIndex(map_file(index_path, "random"), column.values))


def index_bytes_of(column: Column) -> memoryview | None:
    """The file of a key column's index; None: it has none."""
    if not isinstance(column, Int64Column) or not wants_index(column.values):
        return None
    return index_of(column.values).data


def write_index(keys_path: Path, path: Path) -> FileInfo | None:
    """Write the index of the int64 keys in a file to another, in bounded memory; None: they have none."""
    keys = map_file(keys_path, "sequential").view("<i8")
    if not wants_index(keys):
        return None
    data = np.memmap(path, np.uint8, "w+", shape=(Layout.of(len(keys)).bytes,))
    index_of(keys, data)
    data.flush()
    return FileInfo(data.nbytes, sha256_file(path))


def column_of(data: NDArray[np.uint8], rows: int, key_type: KeyType) -> Column:
    """The key column of ``rows`` keys in the bytes of its file; no bytes: a column without keys."""
    if key_type == "int64":
        return Int64Column(data.view("<i8"))
    if len(data) == 0:
        return StringColumn.build(StringKeys(data, np.zeros(1, np.int64)))
    ends = np.cumsum([8 * (rows + 1), 8 * rows, 4 * rows])
    offsets, hashes, hash_rows, heap = np.split(data, ends)
    return StringColumn(StringKeys(heap, offsets.view("<i8")), hashes.view("<u8"), hash_rows.view("<u4"))


def map_or_empty(path: Path | None) -> NDArray[np.uint8]:
    """The file's bytes, advised for random access; a file of no bytes is not stored at all."""
    return np.empty(0, np.uint8) if path is None else map_file(path, "random")
