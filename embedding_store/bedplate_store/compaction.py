"""Compaction: folds the writes into a new base and index, so that searches need not scan them."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import cast

from sqlalchemy import func, select

from bedplate.stored_vectors import Storage
from bedplate.wire.registry import Dtype
from bedplate.wire.store import IndexSpecification, Snapshot
from bedplate_store.database import Database, ReadSession
from bedplate_store.indexes import CentroidSearch
from bedplate_store.objects import ObjectStore
from bedplate_store.snapshots import PreparedSnapshot, current_sequence, prepare, publish
from bedplate_store.spaces import SpaceKey, pending_rows
from bedplate_store.tables.spaces import SnapshotRow, SpaceRow

PENDING_ROWS_MIN = 50_000
PENDING_SHARE = 0.2
PENDING_BYTES_MIN = 512 << 20
PENDING_WRITES_MAX = 1_000


def due(
    session: ReadSession,
    *,
    pending_rows_min: int = PENDING_ROWS_MIN,
    pending_share: float = PENDING_SHARE,
    pending_bytes_min: int = PENDING_BYTES_MIN,
    pending_writes_max: int = PENDING_WRITES_MAX,
) -> list[SpaceKey]:
    """The spaces worth compacting.

    Either their pending rows are at least ``pending_rows_min`` and ``pending_share`` of the snapshot's rows,
    or at least ``pending_bytes_min``, which every reader holds in memory and scans, or their pending writes
    are at least ``pending_writes_max``, each of which a new reader has to open.
    """
    query = (
        select(SpaceRow, SnapshotRow)
        .outerjoin(
            SnapshotRow,
            (SnapshotRow.space_id == SpaceRow.id) & (SnapshotRow.number == SpaceRow.snapshot),
        )
        .where(SpaceRow.sequence > func.coalesce(SnapshotRow.covers_sequence, 0))
        .order_by(SpaceRow.foundation, SpaceRow.version, SpaceRow.space)
    )
    found = []
    for space, snapshot in session.execute(query):
        pending = pending_rows(session, space)
        writes = space.sequence - (0 if snapshot is None else snapshot.covers_sequence)
        many = pending >= pending_rows_min and pending >= pending_share * (snapshot.rows if snapshot else 0)
        heavy = pending * Storage(cast(Dtype, space.dtype), space.dim).row_bytes >= pending_bytes_min
        if many or heavy or writes >= pending_writes_max:
            found.append(SpaceKey(space.foundation, space.version, space.space))
    return found


def prepare_compaction(
    database: Database,
    objects: ObjectStore,
    cache_dir: Path,
    space: SpaceKey,
    specification: IndexSpecification | None,
    centroids: CentroidSearch | None = None,
) -> PreparedSnapshot:
    """The slow part: everything written up to now in one base, with its index (NotFound).

    ``centroids``: see :mod:`bedplate_store.base_indexes`.
    """
    with database.read() as session:
        sequence = current_sequence(session, *space)
    return prepare(
        database,
        objects,
        cache_dir,
        space,
        [],
        specification,
        covers_sequence=sequence,
        centroids=centroids,
    )


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
    return database.transact(lambda session: publish(session, prepared, objects=objects, job=job, now=now))
