"""Group commit: writers that come together share one transaction, and with it one sync of the database.

Writers that each begin their own transaction on SQLite wait for each other by polling with growing pauses:
docs/adr/0014-writes.md.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import cast

from bedplate.errors import BedplateError, TooManyPendingWrites
from bedplate.stored_vectors import Storage
from bedplate.wire.registry import Dtype
from bedplate_store.attributes import with_new
from bedplate_store.database import Database, WriteSession
from bedplate_store.liveness import hold_collection
from bedplate_store.objects import ObjectStore
from bedplate_store.packed_segments import is_packed
from bedplate_store.segments import SegmentInfo
from bedplate_store.spaces import SpaceKey, pending_rows, space_row
from bedplate_store.tables.spaces import SpaceRow, WriteRow


@dataclass(eq=False, slots=True)
class PendingWrite:
    """A write whose segment is durable and that has no sequence yet.

    Attributes:
        attributes: its attributes and their types' names.
        sequence: given by the transaction; None where the segment had vanished before it.
        error: why this write was refused, or the whole transaction failed.
    """

    space: SpaceKey
    info: SegmentInfo
    now: datetime
    attributes: Mapping[str, str]
    done: bool = False
    sequence: int | None = None
    error: Exception | None = field(default=None)

    @property
    def rows(self) -> int:
        return self.info.rows + self.info.tombstones


class GroupCommit:
    """Gives writes their sequences; may be used by several threads at once.

    Whoever finds no transaction under way takes all the writes that wait into the next one; the others wait
    for it. Refusing one write does not touch the others of its transaction.

    Args:
        pending_bytes_max: vectors that a space may hold above its snapshot, in memory of every reader.
    """

    def __init__(self, database: Database, objects: ObjectStore, pending_bytes_max: int) -> None:
        self._database = database
        self._objects = objects
        self._pending_bytes_max = pending_bytes_max
        self._lock = threading.Lock()
        self._turn = threading.Lock()
        self._waiting: list[PendingWrite] = []

    def commit(
        self, space: SpaceKey, info: SegmentInfo, now: datetime, attributes: Mapping[str, str]
    ) -> int | None:
        """The write's sequence, committed; None where a collector took its segment before: write it again.

        ``attributes``: types of the write's, by name; those new to the space are recorded with its sequence.

        Raises:
            NotFound: no such space.
            Conflict, InvalidRequest: the space has an attribute with another type by now, or too many.
            TooManyPendingWrites: compaction is behind.
        """
        write = PendingWrite(space, info, now, attributes)
        with self._lock:
            self._waiting.append(write)
        with self._turn:
            if not write.done:
                with self._lock:
                    group, self._waiting = self._waiting, []
                self._commit(group)
        if write.error is not None:
            raise write.error
        return write.sequence

    def _commit(self, group: list[PendingWrite]) -> None:
        try:
            self._database.transact(lambda session: self._record_all(session, group))
        except Exception as error:  # noqa: BLE001  # each writer of the group raises it in its own thread
            for write in group:
                # A copy each: threads that raise one object write into each other's tracebacks.
                write.sequence, write.error = None, copy.copy(error)
                write.error.__cause__ = error
        finally:
            for write in group:
                write.done = True

    def _record_all(self, session: WriteSession, group: list[PendingWrite]) -> None:
        for write in group:
            write.sequence = write.error = None  # of a transaction that gave way
        hold_collection(session)
        # Before the first space is locked: a slow object store holds up no other process's writers.
        there = {write.info.digest for write in group if is_packed(self._objects, write.info.digest)}
        # In one order everywhere, so that two processes never wait for each other's spaces.
        for space in sorted({write.space for write in group}):
            self._record(session, space, [write for write in group if write.space == space], there)

    def _record(
        self, session: WriteSession, space: SpaceKey, group: list[PendingWrite], there: Collection[str]
    ) -> None:
        """Give the writes of a space their sequences, if their segments are ``there``."""
        try:
            row = space_row(session, space, lock=True)
        except BedplateError as error:
            for write in group:
                write.error = copy.copy(error)
            return
        for write in group:
            if write.info.digest not in there:
                continue
            write.error = self._refusal(session, row, write)
            if write.error is None:
                write.error = _know_attributes(row, write)
            if write.error is not None:
                continue
            row.sequence += 1
            row.written_rows += write.rows
            row.updated_at = write.now
            write.sequence = row.sequence
            session.add(
                WriteRow(
                    space_id=row.id,
                    sequence=row.sequence,
                    digest=write.info.digest,
                    segment=write.info.to_json(),
                    rows=write.rows,
                    written_at=write.now,
                )
            )

    def _refusal(self, session: WriteSession, row: SpaceRow, write: PendingWrite) -> BedplateError | None:
        pending = pending_rows(session, row)
        row_bytes = Storage(cast(Dtype, row.dtype), row.dim).row_bytes
        if (pending + write.rows) * row_bytes <= self._pending_bytes_max or pending == 0:
            return None
        return TooManyPendingWrites(
            f"{write.space} has {pending:,} rows that wait to be compacted, and readers hold them in memory: "
            "wait until its compaction is published (GET /v1/jobs?kind=compact), then send the batch again.",
            pending_rows=pending,
        )


def _know_attributes(row: SpaceRow, write: PendingWrite) -> BedplateError | None:
    """Record the attributes that are new to the space, in the transaction that makes the write seen."""
    if write.attributes.items() <= row.attributes.items():
        return None
    try:
        row.attributes = with_new(row.attributes, write.attributes)
    except BedplateError as error:
        return error
    return None
