"""Whole spaces read from front to back: one state of a space, its rows in order, and the files they lie in.

A state is named by a snapshot and a sequence. The newest one is what the readers have mapped; an older one
is opened again from the database's rows, as long as the collector leaves its objects in place. So a scan that
was cut off goes on with exactly the rows it began with. Shapes: r rows, d the dimension.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import pyarrow as pa
from sqlalchemy import select

from bedplate.codecs import VECTOR, vectors_to_arrow
from bedplate.errors import NotFound, SnapshotGone, SpaceNotReady
from bedplate.segment_files import PACKED, StringColumn
from bedplate.space_rows import Piece, RowOrder
from bedplate.stored_vectors import Storage, StoredRows
from bedplate.wire.registry import Dtype, KeyType
from bedplate_store.database import Database
from bedplate_store.keys import Keys, StringKeys, take
from bedplate_store.objects import ObjectStore
from bedplate_store.overlay import Overlay
from bedplate_store.packed_segments import packed_file
from bedplate_store.segment_files import FileInfo, SegmentInfo, read_manifest
from bedplate_store.segments import Segment, open_segment
from bedplate_store.space_reader import SpaceReader
from bedplate_store.spaces import SpaceKey, space_row
from bedplate_store.tables.spaces import SnapshotRow, SpaceRow, WriteRow

_PAGE_BYTES = 4096


@dataclass(frozen=True, slots=True)
class PinnedState:
    """One state of a space and the segments that make it up, oldest first."""

    space: SpaceKey
    dim: int
    dtype: Dtype
    key_type: KeyType
    snapshot: int
    sequence: int
    base: str | None
    writes: tuple[SegmentInfo, ...]


class SpaceScan:
    """The live rows of one state, in the order of :class:`~bedplate.space_rows.RowOrder`; never changes."""

    def __init__(
        self, storage: Storage, base: Segment | None, overlay: Overlay, *, snapshot: int, sequence: int
    ) -> None:
        self.snapshot = snapshot
        self.sequence = sequence
        self._storage = storage
        self._base = base
        self._overlay = overlay
        self._newer = np.flatnonzero(overlay.slots >= 0)
        dead = np.empty(0, np.int64)
        if base is not None and len(overlay):
            found = base.find(overlay.keys)
            dead = np.sort(found[found >= 0])
        self.order = RowOrder(0 if base is None else base.info.rows, dead, len(self._newer))

    @classmethod
    def of(cls, reader: SpaceReader) -> SpaceScan:
        """The state a reader sees, from what it has mapped."""
        return cls(
            reader.storage, reader.base, reader.overlay, snapshot=reader.snapshot, sequence=reader.sequence
        )

    def sizes(self, rows: range, step: int) -> Iterator[tuple[int, int]]:
        """Of each batch that :meth:`batches` will give: its rows, and the bytes of its keys."""
        for piece in self.order.pieces(rows, step):
            yield len(piece), self._key_bytes(piece)

    def batches(self, rows: range, step: int, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
        """``rows`` as record batches of at most ``step``, with the columns that ``schema`` has.

        What lies in the base without a gap is not copied, unless it is compressed; its pages are in memory
        when a batch is given.
        """
        for piece in self.order.pieces(rows, step):
            columns = [
                vectors_to_arrow(self._storage.decode(self._stored(piece)))
                if name == VECTOR
                else _arrow_keys(self._keys(piece))
                for name in schema.names
            ]
            yield pa.RecordBatch.from_arrays(columns, schema=schema)

    def _stored(self, piece: Piece) -> StoredRows:
        if piece.newer:
            newer: StoredRows = self._overlay.vectors[
                self._overlay.slots[self._newer[piece.start : piece.stop]]
            ]
            return newer
        vectors = self._of_base.scan[piece.start : piece.stop]
        if len(piece.dead):
            living: StoredRows = np.delete(vectors, piece.dead, axis=0)
            return living
        # Whoever sends them must not wait for a disk: an event loop stands still meanwhile.
        vectors.reshape(-1).view(np.uint8)[::_PAGE_BYTES].max(initial=0)
        return vectors

    def _keys(self, piece: Piece) -> Keys:
        if piece.newer:
            return take(self._overlay.keys, self._newer[piece.start : piece.stop])
        keys = self._of_base.keys
        if len(piece.dead):
            return take(keys, piece.rows)
        if isinstance(keys, StringKeys):
            return StringKeys(keys.heap, keys.offsets[piece.start : piece.stop + 1])
        return keys[piece.start : piece.stop]

    def _key_bytes(self, piece: Piece) -> int:
        keys = self._overlay.keys if piece.newer else self._of_base.keys
        if not isinstance(keys, StringKeys):
            return 8 * len(piece)
        if piece.newer:
            rows = self._newer[piece.start : piece.stop]
            return int((keys.offsets[rows + 1] - keys.offsets[rows]).sum()) - len(piece)
        dead = piece.start + piece.dead
        dead_bytes = int((keys.offsets[dead + 1] - keys.offsets[dead]).sum())
        return int(keys.offsets[piece.stop] - keys.offsets[piece.start]) - dead_bytes - len(piece)

    @property
    def _of_base(self) -> Segment:
        assert self._base is not None  # without a base no piece is of it
        return self._base


def _arrow_keys(keys: Keys) -> pa.Array:
    if not isinstance(keys, StringKeys):
        return pa.array(keys)
    return StringColumn(keys.offsets, keys.heap).to_arrow().cast(pa.string())


def find_state(database: Database, key: SpaceKey, snapshot: int | None, sequence: int | None) -> PinnedState:
    """The state of a space at ``snapshot`` and ``sequence``, both None: the newest.

    Raises:
        NotFound: no such space, or it never had this snapshot or sequence.
        SpaceNotReady: it has neither a snapshot nor a write.
        SnapshotGone: it had them; they were compacted, superseded and collected.
    """
    with database.read() as session:
        space = space_row(session, key)
        if space.snapshot is None and space.sequence == 0:
            raise SpaceNotReady(f"{key} holds nothing yet: embed it or upsert vectors.", reference=str(key))
        number = (space.snapshot or 0) if snapshot is None else snapshot
        row = session.get(SnapshotRow, (space.id, number)) if number else None
        through = space.sequence if sequence is None else sequence
        _check_known(key, space, row, number, through)
        covered = 0 if row is None else row.covers_sequence
        writes = session.scalars(
            select(WriteRow.segment)
            .where(WriteRow.space_id == space.id, WriteRow.sequence > covered, WriteRow.sequence <= through)
            .order_by(WriteRow.sequence)
        ).all()
        if len(writes) < through - covered:
            raise _gone(key, number, through)
        return PinnedState(
            space=key,
            dim=space.dim,
            dtype=cast(Dtype, space.dtype),
            key_type=cast(KeyType, space.key_type),
            snapshot=number,
            sequence=through,
            base=None if row is None else row.segments[0]["digest"],
            writes=tuple(SegmentInfo.from_json(write) for write in writes),
        )


def _check_known(key: SpaceKey, space: SpaceRow, row: SnapshotRow | None, number: int, through: int) -> None:
    covered = 0 if row is None else row.covers_sequence
    if (number and row is None) or not covered <= through <= space.sequence:
        raise NotFound(
            f"{key} never was at snapshot {number} and sequence {through}; leave out both for the newest.",
            snapshot=number,
            sequence=through,
        )
    if row is not None and row.collected_at is not None:
        raise _gone(key, number, through)


def _gone(key: SpaceKey, snapshot: int, sequence: int) -> SnapshotGone:
    return SnapshotGone(
        f"{key} was at snapshot {snapshot} and sequence {sequence}, but newer ones replaced them and their "
        "objects were collected: start again from the newest state.",
        snapshot=snapshot,
        sequence=sequence,
    )


def open_scan(objects: ObjectStore, cache_dir: Path, state: PinnedState) -> SpaceScan:
    """Map the segments of a state.

    Raises:
        SnapshotGone: the collector took one meanwhile.
    """
    try:
        base = None if state.base is None else open_segment(objects, state.base, cache_dir)
        writes = [open_segment(objects, write.digest, cache_dir) for write in state.writes]
    except NotFound as error:
        raise _gone(state.space, state.snapshot, state.sequence) from error
    overlay = Overlay.empty(state.key_type, state.dim, state.dtype).extended(writes)
    storage = Storage(state.dtype, state.dim)
    return SpaceScan(storage, base, overlay, snapshot=state.snapshot, sequence=state.sequence)


def segment_manifests(
    objects: ObjectStore, state: PinnedState
) -> Sequence[tuple[SegmentInfo, dict[str, FileInfo]]]:
    """The segments of a state, oldest first, with their files; that of a write has one file, ``packed``.

    Raises:
        SnapshotGone: the collector took one meanwhile.
    """
    try:
        base = [] if state.base is None else [read_manifest(objects, state.base)]
        return [*base, *((write, {PACKED: packed_file(objects, write)}) for write in state.writes)]
    except NotFound as error:
        raise _gone(state.space, state.snapshot, state.sequence) from error
