"""How far what is served is behind what was written, for metrics."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import func, select

from bedplate_store import reader_processes
from bedplate_store.database import ReadSession
from bedplate_store.spaces import SpaceKey
from bedplate_store.tables.spaces import SnapshotRow, SpaceRow


@dataclass(frozen=True, slots=True)
class SpaceLag:
    """A space as it is committed.

    Attributes:
        pending_rows: rows and tombstones that no snapshot holds yet.
        snapshot: the newest published one; 0: none.
        sequence: of the last acknowledged write.
    """

    pending_rows: int
    snapshot: int
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
    query = (
        select(SpaceRow, func.coalesce(SnapshotRow.covers_rows, 0))
        .outerjoin(
            SnapshotRow,
            (SnapshotRow.space_id == SpaceRow.id) & (SnapshotRow.number == SpaceRow.snapshot),
        )
        .where((SpaceRow.sequence > 0) | SpaceRow.snapshot.is_not(None))
        .order_by(SpaceRow.foundation, SpaceRow.version, SpaceRow.space)
    )
    return {
        SpaceKey(row.foundation, row.version, row.space): SpaceLag(
            row.written_rows - covered, row.snapshot or 0, row.sequence
        )
        for row, covered in session.execute(query)
    }


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
