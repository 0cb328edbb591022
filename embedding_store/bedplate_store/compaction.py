"""Compaction: folds the writes into a new base and index, so that searches need not scan them."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from sqlalchemy import func, select

from bedplate.wire.store import IndexSpecification, Snapshot
from bedplate_store.database import Database, ReadSession
from bedplate_store.objects import ObjectStore
from bedplate_store.snapshots import PreparedSnapshot, current_sequence, prepare, publish
from bedplate_store.spaces import SpaceKey
from bedplate_store.tables.spaces import SnapshotRow, SpaceRow, WriteRow

PENDING_ROWS_MIN = 20_000
PENDING_SHARE = 0.1
PENDING_WRITES_MAX = 1_000


def due(
    session: ReadSession,
    *,
    pending_rows_min: int = PENDING_ROWS_MIN,
    pending_share: float = PENDING_SHARE,
    pending_writes_max: int = PENDING_WRITES_MAX,
) -> list[SpaceKey]:
    """The spaces worth compacting.

    Either their pending rows are at least ``pending_rows_min`` and ``pending_share`` of the snapshot's rows,
    or their pending writes are at least ``pending_writes_max``, each of which a new reader has to open.
    """
    covered = func.coalesce(SnapshotRow.covers_sequence, 0)
    query = (
        select(
            SpaceRow.foundation,
            SpaceRow.version,
            SpaceRow.space,
            func.coalesce(func.max(SnapshotRow.rows), 0),
            func.sum(WriteRow.rows),
            func.count(),
        )
        .select_from(SpaceRow)
        .outerjoin(
            SnapshotRow,
            (SnapshotRow.space_id == SpaceRow.id) & (SnapshotRow.number == SpaceRow.snapshot),
        )
        .join(WriteRow, (WriteRow.space_id == SpaceRow.id) & (WriteRow.sequence > covered))
        .group_by(SpaceRow.foundation, SpaceRow.version, SpaceRow.space)
        .order_by(SpaceRow.foundation, SpaceRow.version, SpaceRow.space)
    )
    return [
        SpaceKey(foundation, version, space)
        for foundation, version, space, rows, pending, writes in session.execute(query)
        if writes >= pending_writes_max or (pending >= pending_rows_min and pending >= pending_share * rows)
    ]


def prepare_compaction(
    database: Database,
    objects: ObjectStore,
    cache_dir: Path,
    space: SpaceKey,
    specification: IndexSpecification | None,
) -> PreparedSnapshot:
    """The slow part: everything written up to now in one base, with its index (NotFound)."""
    with database.read() as session:
        sequence = current_sequence(session, *space)
    return prepare(database, objects, cache_dir, space, [], specification, covers_sequence=sequence)


def compact(
    database: Database,
    objects: ObjectStore,
    cache_dir: Path,
    *,
    foundation: str,
    version: int,
    space: str,
    specification: IndexSpecification | None,
    job: str | None,
    now: datetime,
) -> Snapshot:
    """Prepare and publish in one call.

    Raises:
        NotFound: no such space.
        SnapshotMoved: another snapshot was published meanwhile; nothing was lost, try again.
    """
    prepared = prepare_compaction(
        database, objects, cache_dir, SpaceKey(foundation, version, space), specification
    )
    with database.write() as session:
        return publish(session, prepared, objects=objects, job=job, now=now)
