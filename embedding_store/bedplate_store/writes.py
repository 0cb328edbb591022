"""Upserts and deletes: durable before they are acknowledged, seen by readers soon after.

A write is a small packed segment in object storage and one row with the space's next sequence. The row is
committed after the segment is durable and under the lock of the space's row: sequences are seen in order,
without gaps.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, cast

import numpy as np
import pyarrow as pa

from bedplate.errors import BatchTooLarge, EmptyBatch, InvalidRequest, Unavailable
from bedplate.stored_vectors import Storage
from bedplate.wire.registry import Dtype, KeyType
from bedplate.wire.store import WriteAnswer
from bedplate_store.attributes import Columns, parse, types_of
from bedplate_store.database import Database
from bedplate_store.group_commit import GroupCommit
from bedplate_store.keys import Keys, RawKeys, build_column, check_writable, parse_keys, sort_last_wins, take
from bedplate_store.objects import ObjectStore
from bedplate_store.packed_segments import empty_column, write_packed
from bedplate_store.readers import SpaceReaders
from bedplate_store.segments import SegmentInfo, validate_vectors
from bedplate_store.spaces import SpaceKey, space_row
from bedplate_store.tables.spaces import SpaceRow
from bedplate_store.write_tokens import WriteToken

ROWS_MAX = 100_000
PENDING_BYTES_MAX = 4 << 30
_ATTEMPTS = 3


class Writes:
    """Where a process writes: one object for all its threads, because writers share transactions.

    Args:
        pending_bytes_max: how many bytes of a space's rows may wait for compaction, in readers' memory.
        readers: those of this process, if it reads what it writes.
    """

    def __init__(
        self,
        database: Database,
        objects: ObjectStore,
        pending_bytes_max: int = PENDING_BYTES_MAX,
        readers: SpaceReaders | None = None,
    ) -> None:
        self._readers = readers
        self._database = database
        self._objects = objects
        self._commits = GroupCommit(database, objects, pending_bytes_max)

    def upsert(
        self,
        *,
        foundation: str,
        version: int,
        space: str,
        keys: RawKeys,
        vectors: Any,
        now: datetime,
        attributes: Columns | None = None,
    ) -> WriteAnswer:
        """Insert or replace the rows of ``keys`` [n] with ``vectors`` [n, dim] and ``attributes`` [n].

        The last of equal keys counts; ``rows`` of the answer counts distinct keys. A row is replaced as a
        whole: attributes that are not given are null afterwards.

        Raises:
            NotFound: no such space.
            EmptyBatch, BatchTooLarge: no rows, or more than 100,000.
            DimensionMismatch, NonFiniteVectors, KeyTypeMismatch, InvalidRequest: nothing was written.
            Conflict: an attribute has another type in this space; nothing was written.
            TooManyPendingWrites: compaction is behind; nothing was written.
        """
        key = SpaceKey(foundation, version, space)
        target = self._target(key)
        _check_rows(len(keys))
        rows = validate_vectors(vectors, target.dim, cast(Dtype, target.dtype))
        if len(rows) != len(keys):
            raise InvalidRequest(f"{len(keys)} keys for {len(rows)} vectors: send one vector for each key.")
        table = parse(attributes or {}, len(rows), target.attributes)
        parsed, order = _distinct(keys, target)
        if table is not None and order is not None:
            table = table.take(pa.array(order))
        stored = Storage(cast(Dtype, target.dtype), target.dim).encode(rows)
        return self._write(key, target, parsed, stored, order, deletes=False, now=now, attributes=table)

    def delete(
        self, *, foundation: str, version: int, space: str, keys: RawKeys, now: datetime
    ) -> WriteAnswer:
        """Remove the rows of ``keys`` [n]; unknown ones are no error. ``rows`` counts distinct keys.

        Raises:
            NotFound: no such space.
            EmptyBatch, BatchTooLarge: no keys, or more than 100,000.
            KeyTypeMismatch, InvalidRequest, TooManyPendingWrites: nothing was written.
        """
        key = SpaceKey(foundation, version, space)
        target = self._target(key)
        _check_rows(len(keys))
        parsed, _ = _distinct(keys, target)
        return self._write(
            key, target, parsed, np.empty((0, target.dim), np.float32), None, deletes=True, now=now
        )

    def _target(self, key: SpaceKey) -> SpaceRow:
        with self._database.read() as session:
            row = space_row(session, key)
            session.expunge(row)
        return row

    def _write(
        self,
        key: SpaceKey,
        target: SpaceRow,
        keys: Keys,
        vectors: Any,
        order: Any,
        *,
        deletes: bool,
        now: datetime,
        attributes: pa.Table | None = None,
    ) -> WriteAnswer:
        column, none = build_column(keys), empty_column(cast(KeyType, target.key_type))
        for _ in range(_ATTEMPTS):
            info: SegmentInfo = write_packed(
                self._objects,
                column=none if deletes else column,
                vectors=vectors,
                order=order,
                tombstones=column if deletes else none,
                key_type=cast(KeyType, target.key_type),
                dim=target.dim,
                dtype=cast(Dtype, target.dtype),
                attributes=attributes,
            )
            sequence = self._commits.commit(key, info, now, types_of(attributes))
            if sequence is not None:
                if self._readers is not None:
                    self._readers.keep_up(key)
                token = WriteToken(key, sequence)
                return WriteAnswer(reference=str(key), rows=len(column), sequence=sequence, token=str(token))
        raise Unavailable(f"the objects of a write to {key} vanished {_ATTEMPTS} times: try again later.")


def _distinct(keys: RawKeys, target: SpaceRow) -> tuple[Keys, Any]:
    """The distinct keys, sorted, and at which row each occurs last; None: they came like that."""
    parsed = parse_keys(keys, cast(KeyType, target.key_type))
    check_writable(parsed)
    order = sort_last_wins(parsed)
    if len(order) == len(parsed) and bool((order == np.arange(len(order))).all()):
        return parsed, None
    return take(parsed, order), order


def _check_rows(count: int) -> None:
    if count == 0:
        raise EmptyBatch("the batch holds no keys: send at least one.")
    if count > ROWS_MAX:
        raise BatchTooLarge(
            f"the batch holds {count} rows: send at most {ROWS_MAX} at a time.", rows=count, rows_max=ROWS_MAX
        )
