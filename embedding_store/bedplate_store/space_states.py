"""What the database says a reader of a space should see."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import NamedTuple

from sqlalchemy import select, tuple_

from bedplate.errors import SpaceNotReady
from bedplate_store.database import Database, ReadSession
from bedplate_store.space_reader import SpaceReader
from bedplate_store.spaces import SpaceKey, space_row
from bedplate_store.tables.spaces import SnapshotRow, SpaceRow, WriteRow


@dataclass(frozen=True, slots=True)
class SpaceState:
    """A space at one moment.

    Attributes:
        snapshot: the published one, None where only writes exist.
        writes: digests of the writes above the snapshot, oldest first.
        behind: those that the reader this was asked for lacks above its own snapshot, or None where some
            of them are not recorded any more, so that only the newer snapshot has them.
    """

    row: SpaceRow
    snapshot: SnapshotRow | None
    writes: list[str]
    behind: list[str] | None

    @property
    def number(self) -> int:
        """Of the published snapshot, 0 where there is none."""
        return 0 if self.snapshot is None else self.snapshot.number


class Committed(NamedTuple):
    """How far a space is: its published snapshot (0: none) and the last write's sequence."""

    snapshot: int
    sequence: int


def committed(database: Database, keys: Collection[SpaceKey]) -> dict[SpaceKey, Committed]:
    """How far each of these spaces is, those left out that do not exist; one query, whatever their number."""
    address = (SpaceRow.foundation, SpaceRow.version, SpaceRow.space)
    query = select(*address, SpaceRow.snapshot, SpaceRow.sequence).where(tuple_(*address).in_(keys))
    with database.read() as session:
        return {
            SpaceKey(foundation, version, space): Committed(snapshot or 0, sequence)
            for foundation, version, space, snapshot, sequence in session.execute(query)
        }


def read_state(database: Database, key: SpaceKey, reader: SpaceReader | None) -> SpaceState:
    """The state of a space, and how far ``reader`` is behind it.

    Raises:
        NotFound: no such space.
        SpaceNotReady: it has neither a snapshot nor a write.
    """
    with database.read() as session:
        row = space_row(session, key)
        if row.snapshot is None and row.sequence == 0:
            raise SpaceNotReady(
                f"{key} holds nothing yet: embed it (POST .../embed) or upsert vectors, then ask again.",
                reference=str(key),
            )
        snapshot = None if row.snapshot is None else session.get(SnapshotRow, (row.id, row.snapshot))
        behind = None if reader is None else _writes(session, row, reader.sequence)
        if reader is not None and reader.snapshot == (row.snapshot or 0):
            return SpaceState(row, snapshot, [], behind)
        covered = 0 if snapshot is None else snapshot.covers_sequence
        if reader is not None and len(behind or []) < row.sequence - reader.sequence:
            behind = None  # sequences have no gaps: the collector forgot what the new snapshot covers
        return SpaceState(row, snapshot, _writes(session, row, covered), behind)


def _writes(session: ReadSession, row: SpaceRow, since: int) -> list[str]:
    return list(
        session.scalars(
            select(WriteRow.digest)
            .where(WriteRow.space_id == row.id, WriteRow.sequence > since, WriteRow.sequence <= row.sequence)
            .order_by(WriteRow.sequence)
        )
    )
