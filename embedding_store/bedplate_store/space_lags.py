"""What is published, how good it is, and how far it is behind what was written, for metrics."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import func, select

from bedplate_store import reader_processes
from bedplate_store.database import ReadSession
from bedplate_store.indexes import IndexDocument
from bedplate_store.spaces import SpaceKey
from bedplate_store.tables.spaces import SnapshotRow, SpaceRow, WriteRow


@dataclass(frozen=True, slots=True)
class SpaceLag:
    """A space as it is committed.

    Attributes:
        pending_rows: rows and tombstones that no snapshot holds yet.
        oldest_pending_at: when the first of them was written; None: there are none.
        snapshot: the newest published one; 0: none.
        published_at: when it was; None: none.
        rows: it has.
        recall: of its index against exact search, as measured when it was built, by the number of neighbours.
        sequence: of the last acknowledged write.
    """

    pending_rows: int
    oldest_pending_at: datetime | None
    snapshot: int
    published_at: datetime | None
    rows: int
    recall: Mapping[int, float]
    sequence: int


@dataclass(frozen=True, slots=True)
class ReaderLag:
    """A space as a living process said that it has it open.

    Attributes:
        behind_writes: acknowledged writes that it did not show then.
    """

    space: SpaceKey
    process: str
    snapshot: int
    behind_writes: int


def space_lags(session: ReadSession) -> dict[SpaceKey, SpaceLag]:
    """Every space that was written to or published."""
    covered = func.coalesce(SnapshotRow.covers_sequence, 0)
    oldest_pending = (
        select(WriteRow.written_at)
        .where(WriteRow.space_id == SpaceRow.id, WriteRow.sequence > covered)
        .order_by(WriteRow.sequence)
        .limit(1)
        .correlate(SpaceRow, SnapshotRow)
        .scalar_subquery()
    )
    query = (
        select(SpaceRow, SnapshotRow, oldest_pending)
        .outerjoin(
            SnapshotRow,
            (SnapshotRow.space_id == SpaceRow.id) & (SnapshotRow.number == SpaceRow.snapshot),
        )
        .where((SpaceRow.sequence > 0) | SpaceRow.snapshot.is_not(None))
        .order_by(SpaceRow.foundation, SpaceRow.version, SpaceRow.space)
    )
    return {
        SpaceKey(space.foundation, space.version, space.space): _lag(space, snapshot, oldest)
        for space, snapshot, oldest in session.execute(query)
    }


def _lag(space: SpaceRow, snapshot: SnapshotRow | None, oldest_pending_at: datetime | None) -> SpaceLag:
    return SpaceLag(
        pending_rows=space.written_rows - (0 if snapshot is None else snapshot.covers_rows),
        oldest_pending_at=oldest_pending_at,
        snapshot=space.snapshot or 0,
        published_at=None if snapshot is None else snapshot.published_at,
        rows=0 if snapshot is None else snapshot.rows,
        recall={} if snapshot is None else _recall(snapshot),
        sequence=space.sequence,
    )


def _recall(snapshot: SnapshotRow) -> dict[int, float]:
    if snapshot.index is None:
        return {}
    index = IndexDocument.from_json(snapshot.index)
    measured = {10: index.recall_at_10, 100: index.recall_at_100}
    return {neighbours: recall for neighbours, recall in measured.items() if recall is not None}


def reader_lags(
    session: ReadSession, spaces: Mapping[SpaceKey, SpaceLag], now: datetime
) -> tuple[list[ReaderLag], dict[str, float]]:
    """What living processes have open, and how many seconds ago each of them said so."""
    lags, told_seconds = [], {}
    for reader, seen_at in reader_processes.living(session, now):
        told_seconds[reader.process] = max(0.0, (now - seen_at).total_seconds())
        for key, opened in reader.spaces.items():
            if key in spaces:
                behind = max(0, spaces[key].sequence - opened.sequence)
                lags.append(ReaderLag(key, reader.process, opened.snapshot, behind))
    return lags, told_seconds
