"""What the collector may not touch, and the lock that keeps it from racing those who add references.

Whoever records a reference to a segment or index does so in a transaction that first calls
:func:`hold_collection` and then sees for itself that the objects are there; the collector decides and deletes
in a transaction that first calls :func:`exclude_references`. So either the collector sees the reference, or
the other side sees that the object is gone and writes it again.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy import or_, select, text

from bedplate_store.database import ReadSession, WriteSession
from bedplate_store.indexes import IndexDocument
from bedplate_store.tables.spaces import SnapshotRow, SpaceRow, WriteRow

_LOCK = 0xBED0C01


def hold_collection(session: WriteSession) -> None:
    """Nothing is collected until this transaction ends."""
    _lock(session, "SELECT pg_advisory_xact_lock_shared(:lock)")


def exclude_references(session: WriteSession) -> None:
    """No reference is added until this transaction ends."""
    _lock(session, "SELECT pg_advisory_xact_lock(:lock)")


def live_snapshots(session: ReadSession, now: datetime, grace: timedelta) -> list[SnapshotRow]:
    """The snapshots readers see, and those superseded less than ``grace`` ago: a slow reader may open one."""
    query = (
        select(SnapshotRow)
        .join(SpaceRow, SpaceRow.id == SnapshotRow.space_id)
        .where(
            or_(
                SnapshotRow.number == SpaceRow.snapshot,
                SnapshotRow.superseded_at > now - grace,
            )
        )
    )
    return list(session.scalars(query))


def live_segments(session: ReadSession, now: datetime, grace: timedelta) -> set[str]:
    """Digests of the segments that live snapshots and recorded writes hold."""
    digests = {each["digest"] for row in live_snapshots(session, now, grace) for each in row.segments}
    digests.update(session.scalars(select(WriteRow.digest)))
    return digests


def live_indexes(session: ReadSession, now: datetime, grace: timedelta) -> set[str]:
    """Digests of the index files that live snapshots hold; a scan has none."""
    indexes = (row.index for row in live_snapshots(session, now, grace) if row.index is not None)
    return {digest for index in indexes for digest, _ in IndexDocument.from_json(index).files}


def _lock(session: WriteSession, statement: str) -> None:
    if session.get_bind().dialect.name == "postgresql":
        session.execute(text(statement), {"lock": _LOCK})
    else:
        # SQLite lets one writer in at a time; a session says BEGIN IMMEDIATE only with its first statement.
        session.execute(text("SELECT 1"))
