"""A whole space on this machine, memory-mapped. Shape suffixes: N live rows, D dimension."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pydantic import ValidationError

from bedplate.codecs import SCAN_COLUMNS, VECTOR, Keys, ScanBatch, ScanInfo, Vectors
from bedplate.codecs.scans import KEY
from bedplate.errors import InvalidRequest
from bedplate.segment_files import (
    KEYS,
    PACKED,
    TOMBSTONES,
    VECTORS,
    KeyColumn,
    StringColumn,
    keys_of,
    map_file,
    unpack,
)
from bedplate.space_rows import Piece, RowOrder
from bedplate.stored_vectors import Storage, StoredRows
from bedplate.wire.store import SpaceFiles, SpaceSegment

if TYPE_CHECKING:
    import torch

    from bedplate.torch_data import SpaceDataset

FILES_READ = (KEYS, VECTORS, TOMBSTONES, PACKED)
"""The files of a segment that are needed here; segments may have others."""
DOCUMENT = "space.json"
_BATCH_BYTES = 4 << 20
_PROBED_ROWS = 1 << 20


@dataclass(frozen=True)
class _Mapped:
    keys: KeyColumn
    vectors: StoredRows
    tombstones: KeyColumn


class SpaceData:
    """One state of a space. What is not touched costs no memory.

    Attributes:
        files: the document: reference, snapshot, sequence, dimension, dtype, key type, segments.
        order: which rows live, in which order; the same as a scan over REST has.
    """

    def __init__(
        self,
        files: SpaceFiles,
        locate: Callable[[SpaceSegment, str], Path],
        *,
        directory: Path | None = None,
        temporary: tempfile.TemporaryDirectory[str] | None = None,
    ) -> None:
        self.files = files
        self._storage = Storage(files.dtype, files.dim)
        self._directory = directory
        self._temporary = temporary  # deleted with this object
        base, *writes = [self._map(segment, locate) for segment in files.segments] or [self._nothing()]
        if files.segments and files.snapshot == 0:
            base, writes = self._nothing(), [base, *writes]
        self._base = base
        self._newer = _newest(writes, files)
        self.order = RowOrder(len(base.vectors), _dead(base.keys, self._newer), len(self._newer.rows))

    @classmethod
    def open(cls, directory: str | Path) -> SpaceData:
        """Map what ``client.spaces.download`` wrote into ``directory``; it was verified then and is not now.

        Raises:
            InvalidRequest: there is no downloaded space.
        """
        folder = Path(directory)
        try:
            files = SpaceFiles.model_validate_json((folder / DOCUMENT).read_bytes())
            return cls(files, lambda segment, name: file_in(folder, segment, name), directory=folder)
        except (OSError, ValidationError, ValueError) as error:
            raise InvalidRequest(
                f"{folder} holds no whole downloaded space ({error}); download it: client.spaces.download."
            ) from error

    def __len__(self) -> int:
        return len(self.order)

    def __reduce__(self) -> tuple[Any, ...]:
        # Worker processes map the files again instead of being sent them.
        if self._directory is None:
            raise TypeError("only a space downloaded into a directory can be sent to another process")
        return (SpaceData.open, (self._directory,))

    @property
    def info(self) -> ScanInfo:
        return ScanInfo(self.files.reference, self.files.snapshot, self.files.sequence, 0, len(self))

    @property
    def is_one_segment(self) -> bool:
        """Whether the rows are those of the base alone, so that ``vectors`` is the mapped file."""
        return len(self._newer.column) == 0

    @property
    def keys(self) -> NDArray[np.int64] | pa.LargeStringArray:
        """The keys [N], in the order of ``vectors``."""
        if self.is_one_segment:
            keys = self._base.keys
            return keys.to_arrow() if isinstance(keys, StringColumn) else keys
        parts = [self._arrow_keys(piece) for piece in self.order.pieces(range(len(self)), _PROBED_ROWS)]
        joined = pa.chunked_array(parts, self._arrow_type).combine_chunks()
        return joined if self.files.key_type == "string" else joined.to_numpy()

    @property
    def vectors(self) -> Vectors:
        """The vectors [N, D]: the mapped file itself where no write lies above it and it is not compressed.

        float32 where they are stored so, else float16. Otherwise a copy; ``batches`` never copies more than
        a batch.
        """
        if self.is_one_segment:
            return self._storage.decode(self._base.vectors)
        copied: Vectors = np.empty((len(self), self.files.dim), self._storage.answers)
        done = 0
        for piece in self.order.pieces(range(len(self)), _step(self.files)):
            copied[done : done + len(piece)] = self._vectors(piece)
            done += len(piece)
        return copied

    def batches(
        self,
        batch_rows: int | None = None,
        *,
        shard: tuple[int, int] = (0, 1),
        columns: Sequence[str] = SCAN_COLUMNS,
    ) -> Iterator[ScanBatch]:
        """The rows in order. Vectors are copied where they are compressed or a write lies between them.

        Args:
            batch_rows: at most so many at a time; None: 4 MiB of vectors.
            shard: (i, n): the i-th of n equal parts, from 0.
            columns: ``key``, ``vector`` or both.

        Raises:
            InvalidRequest: no such shard.
        """
        rows = self.order.shard(*shard)
        row = rows.start
        info = replace(self.info, first_row=row, rows=len(rows))
        for piece in self.order.pieces(rows, batch_rows or _step(self.files)):
            keys = self._keys(piece) if KEY in columns else None
            vectors = self._vectors(piece) if VECTOR in columns else None
            yield ScanBatch(keys, vectors, row, info)
            row += len(piece)

    def to_torch(self) -> torch.Tensor:
        """``vectors`` [N, D] as a tensor over the same memory; writing into it never changes the file."""
        from bedplate import torch_data  # the one place that needs torch

        return torch_data.tensor(self)

    def torch_dataset(self, batch_rows: int = 8192, *, rank: int = 0, world_size: int = 1) -> SpaceDataset:
        """An IterableDataset of (keys, tensor) batches; each worker of each rank gets its own shard."""
        from bedplate import torch_data

        return torch_data.SpaceDataset(self, batch_rows, rank=rank, world_size=world_size)

    def _map(self, segment: SpaceSegment, locate: Callable[[SpaceSegment, str], Path]) -> _Mapped:
        sizes = {file.name: file.bytes for file in segment.files if file.name in FILES_READ}
        columns = {name: map_file(locate(segment, name)) for name in sizes}
        for name, data in columns.items():
            if len(data) != sizes[name]:
                raise ValueError(f"{name} of segment {segment.digest} does not have {sizes[name]} bytes")
        if PACKED in columns:
            _, columns = unpack(columns[PACKED])
        none, files = np.empty(0, np.uint8), self.files
        return _Mapped(
            keys_of(columns.get(KEYS, none), segment.rows, files.key_type),
            self._storage.of_bytes(columns.get(VECTORS, none)),
            keys_of(columns.get(TOMBSTONES, none), segment.tombstones, files.key_type),
        )

    def _nothing(self) -> _Mapped:
        none = np.empty(0, np.uint8)
        keys = keys_of(none, 0, self.files.key_type)
        return _Mapped(keys, self._storage.empty(0), keys)

    def _vectors(self, piece: Piece) -> Vectors:
        return self._storage.decode(self._stored(piece))

    def _stored(self, piece: Piece) -> StoredRows:
        if piece.newer:
            return self._newer.vectors(range(piece.start, piece.stop))
        vectors = self._base.vectors[piece.start : piece.stop]
        if len(piece.dead):
            living: StoredRows = np.delete(vectors, piece.dead, axis=0)
            return living
        return vectors

    def _keys(self, piece: Piece) -> Keys:
        if not piece.newer and isinstance(self._base.keys, np.ndarray):
            mapped = self._base.keys[piece.start : piece.stop]
            return np.delete(mapped, piece.dead) if len(piece.dead) else mapped
        found = self._arrow_keys(piece)
        keys: Keys = found.to_pylist() if self.files.key_type == "string" else np.array(found)
        return keys

    def _arrow_keys(self, piece: Piece) -> pa.Array:
        if piece.newer:
            return self._newer.keys[piece.start : piece.stop]
        keys = _to_arrow(self._base.keys, piece.start, piece.stop)
        return keys.take(pa.array(piece.rows - piece.start)) if len(piece.dead) else keys

    @property
    def _arrow_type(self) -> pa.DataType:
        return pa.large_string() if self.files.key_type == "string" else pa.int64()


def file_in(directory: Path, segment: SpaceSegment, name: str) -> Path:
    """Where a downloaded file lies."""
    return directory / "segments" / segment.digest / name


def _step(files: SpaceFiles) -> int:
    return max(1, _BATCH_BYTES // Storage(files.dtype, files.dim).row_bytes)


@dataclass(frozen=True)
class _Newest:
    """The writes folded into one: of each key the newest row or tombstone.

    Attributes:
        column: every written or deleted key, sorted, as an Arrow array.
        keys: those that have a row.
        rows: the place of each of ``keys`` in ``sources`` as (which write, which row).
    """

    column: pa.Array
    keys: pa.Array
    rows: NDArray[np.int64]
    sources: Sequence[StoredRows]
    storage: Storage

    def vectors(self, of: range) -> StoredRows:
        """The stored rows of ``keys[of]``, copied."""
        places = self.rows[of.start : of.stop]
        gathered = self.storage.empty(len(places))
        for source in np.unique(places[:, 0]):
            mine = places[:, 0] == source
            gathered[mine] = self.sources[source][places[mine, 1]]
        return gathered


def _newest(writes: Sequence[_Mapped], files: SpaceFiles) -> _Newest:
    kind = pa.large_string() if files.key_type == "string" else pa.int64()
    parts: list[pa.Array] = []
    places: list[NDArray[np.int64]] = [np.empty((0, 2), np.int64)]
    for number, write in enumerate(writes):
        for keys, first, step in ((write.keys, 0, 1), (write.tombstones, -1, 0)):
            parts.append(_to_arrow(keys, 0, len(keys)))
            rows = first + step * np.arange(len(keys))
            places.append(np.stack([np.full(len(keys), number), rows], axis=1))
    column = pa.chunked_array(parts, kind).combine_chunks()
    place = np.concatenate(places)
    # Stable, and UTF-8 sorts bytewise: of equal keys the last one is the newest.
    order = pc.sort_indices(column).to_numpy()
    column = column.take(pa.array(order))
    last = np.ones(len(order), np.bool_)
    if len(order) > 1:
        last[:-1] = pc.not_equal(column[1:], column[:-1]).to_numpy(zero_copy_only=False)
    column, place = column.filter(pa.array(last)), place[order[last]]
    living = place[:, 1] >= 0
    keys = column.filter(pa.array(living))
    storage = Storage(files.dtype, files.dim)
    return _Newest(column, keys, place[living], [each.vectors for each in writes], storage)


def _dead(base: KeyColumn, newer: _Newest) -> NDArray[np.int64]:
    """Rows of the base that were written again or deleted, ascending."""
    if len(newer.column) == 0 or len(base) == 0:
        return np.empty(0, np.int64)
    if isinstance(base, np.ndarray):
        asked = newer.column.to_numpy()
        rows = np.minimum(np.searchsorted(base, asked), len(base) - 1)
        dead: NDArray[np.int64] = rows[base[rows] == asked]
        return dead
    found = [
        start + np.flatnonzero(pc.is_in(_to_arrow(base, start, stop), newer.column).to_numpy(False))
        for start in range(0, len(base), _PROBED_ROWS)
        for stop in (min(start + _PROBED_ROWS, len(base)),)
    ]
    return np.concatenate(found)


def _to_arrow(keys: KeyColumn, start: int, stop: int) -> pa.Array:
    if isinstance(keys, StringColumn):
        return keys.part(start, stop).to_arrow()
    return pa.array(keys[start:stop])
