"""Upserts and deletes: durable before they are acknowledged, seen by readers soon after.

A write is a small segment in object storage and one row with the space's next sequence. The row is committed
after the segment is durable and under the lock of the space's row: sequences are seen in order, without gaps.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any, cast

import numpy as np

from bedplate.errors import BatchTooLarge, EmptyBatch, InvalidRequest, Unavailable
from bedplate.wire.registry import Dtype, KeyType
from bedplate.wire.store import WriteAnswer
from bedplate_store.database import Database
from bedplate_store.keys import RawKeys
from bedplate_store.liveness import hold_collection
from bedplate_store.objects import ObjectStore
from bedplate_store.segments import SegmentInfo, segment_is_whole, validate_vectors, write_segment
from bedplate_store.spaces import SpaceKey, space_row
from bedplate_store.tables.spaces import SpaceRow, WriteRow

ROWS_MAX = 100_000
_ATTEMPTS = 3


def upsert(
    database: Database,
    objects: ObjectStore,
    *,
    foundation: str,
    version: int,
    space: str,
    keys: RawKeys,
    vectors: Any,
    now: datetime,
) -> WriteAnswer:
    """Insert or replace the rows of ``keys`` [n] with ``vectors`` [n, dim]; the last of equal keys counts.

    ``rows`` of the answer counts distinct keys.

    Raises:
        NotFound: no such space.
        EmptyBatch, BatchTooLarge: no rows, or more than 100,000.
        DimensionMismatch, NonFiniteVectors, KeyTypeMismatch, InvalidRequest: nothing was written.
    """
    key = SpaceKey(foundation, version, space)
    target = _target(database, key)
    _check_rows(len(keys))
    rows = validate_vectors(vectors, target.dim, cast(Dtype, target.dtype))
    if len(rows) != len(keys):
        raise InvalidRequest(f"{len(keys)} keys for {len(rows)} vectors: send one vector for each key.")
    return _write(database, objects, key, now, lambda: _segment(objects, target, keys, rows, None))


def delete(
    database: Database,
    objects: ObjectStore,
    *,
    foundation: str,
    version: int,
    space: str,
    keys: RawKeys,
    now: datetime,
) -> WriteAnswer:
    """Remove the rows of ``keys`` [n]; keys that are not there are no error. ``rows`` counts distinct keys.

    Raises:
        NotFound: no such space.
        EmptyBatch, BatchTooLarge: no keys, or more than 100,000.
        KeyTypeMismatch, InvalidRequest: nothing was written.
    """
    key = SpaceKey(foundation, version, space)
    target = _target(database, key)
    _check_rows(len(keys))
    none = np.empty((0, target.dim), np.float32)
    return _write(database, objects, key, now, lambda: _segment(objects, target, [], none, keys))


def _target(database: Database, key: SpaceKey) -> SpaceRow:
    with database.read() as session:
        row = space_row(session, key)
        session.expunge(row)
    return row


def _check_rows(count: int) -> None:
    if count == 0:
        raise EmptyBatch("the batch holds no keys: send at least one.")
    if count > ROWS_MAX:
        raise BatchTooLarge(
            f"the batch holds {count} rows: send at most {ROWS_MAX} at a time.", rows=count, rows_max=ROWS_MAX
        )


def _segment(
    objects: ObjectStore, target: SpaceRow, keys: RawKeys, vectors: Any, tombstones: RawKeys | None
) -> SegmentInfo:
    return write_segment(
        objects,
        keys=keys,
        vectors=vectors,
        tombstones=tombstones,
        dtype=cast(Dtype, target.dtype),
        key_type=cast(KeyType, target.key_type),
    )


def _write(
    database: Database, objects: ObjectStore, key: SpaceKey, now: datetime, make: Callable[[], SegmentInfo]
) -> WriteAnswer:
    for _ in range(_ATTEMPTS):
        info = make()
        sequence = _record(database, objects, key, info, now)
        if sequence is not None:
            return WriteAnswer(reference=str(key), rows=info.rows + info.tombstones, sequence=sequence)
    raise Unavailable(f"the objects of a write to {key} vanished {_ATTEMPTS} times: try again later.")


def _record(
    database: Database, objects: ObjectStore, key: SpaceKey, info: SegmentInfo, now: datetime
) -> int | None:
    """Give the write its sequence; None where the collector took an old copy of its segment meanwhile."""
    with database.write() as session:
        hold_collection(session)
        if not segment_is_whole(objects, info):
            return None
        row = space_row(session, key, lock=True)
        row.sequence += 1
        row.updated_at = now
        session.add(
            WriteRow(
                space_id=row.id,
                sequence=row.sequence,
                digest=info.digest,
                segment=info.to_json(),
                rows=info.rows + info.tombstones,
                written_at=now,
            )
        )
        return row.sequence
