"""Garbage collection: removes the objects nobody refers to, never one somebody does."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import islice

from sqlalchemy import delete, func, select

from bedplate_store.database import Database, WriteSession
from bedplate_store.indexes import INDEXES_PREFIX
from bedplate_store.liveness import exclude_references, live_indexes, live_segments, live_snapshots
from bedplate_store.objects import ObjectStore
from bedplate_store.segments import SEGMENTS_PREFIX
from bedplate_store.tables.spaces import SnapshotRow, WriteRow

# Deleting holds the lock that writes wait for: a few at a time.
_DIGESTS_PER_TRANSACTION = 16


@dataclass(frozen=True, slots=True)
class Collected:
    """What a collection removed: segments, indexes, their bytes, and records of writes long compacted."""

    segments: int
    indexes: int
    bytes: int
    writes: int


def collect(
    database: Database,
    objects: ObjectStore,
    *,
    now: datetime,
    grace: timedelta,
    keep: Collection[str] = (),
) -> Collected:
    """Remove segments and indexes that no live snapshot and no write refers to and nobody put for ``grace``.

    A snapshot lives while readers see it and for ``grace`` after it was superseded. ``keep`` are digests that
    others refer to, such as partitions of an embedding that is not published yet; without it those must
    be younger than ``grace``. Safe beside readers, writers and other collectors, and if killed half-way.
    """

    def forget(session: WriteSession) -> int:
        exclude_references(session)
        removed = _forget_writes(session, now, grace)
        _mark_collected(session, now, grace)
        return removed

    writes = database.transact(forget)
    segments = _collect_prefix(database, objects, SEGMENTS_PREFIX, now, grace, keep)
    indexes = _collect_prefix(database, objects, INDEXES_PREFIX, now, grace, keep)
    return Collected(segments[0], indexes[0], segments[1] + indexes[1], writes)


def _forget_writes(session: WriteSession, now: datetime, grace: timedelta) -> int:
    """Remove the records of writes that every live snapshot of their space covers."""
    covered: dict[int, int] = {}
    for row in live_snapshots(session, now, grace):
        covered[row.space_id] = min(row.covers_sequence, covered.get(row.space_id, row.covers_sequence))
    removed = 0
    for space_id, sequence in covered.items():
        old = (WriteRow.space_id == space_id) & (WriteRow.sequence <= sequence)
        old &= WriteRow.written_at <= now - grace
        removed += session.scalar(select(func.count()).select_from(WriteRow).where(old)) or 0
        session.execute(delete(WriteRow).where(old))
    return removed


def _mark_collected(session: WriteSession, now: datetime, grace: timedelta) -> None:
    old = SnapshotRow.superseded_at <= now - grace
    for row in session.scalars(select(SnapshotRow).where(old, SnapshotRow.collected_at.is_(None))):
        row.collected_at = now


def _collect_prefix(
    database: Database,
    objects: ObjectStore,
    prefix: str,
    now: datetime,
    grace: timedelta,
    keep: Collection[str],
) -> tuple[int, int]:
    kept = set(keep)
    live = live_segments if prefix == SEGMENTS_PREFIX else live_indexes
    with database.read() as session:
        kept = kept | live(session, now, grace)
    by_digest: dict[str, list[str]] = {}
    for key in objects.list(prefix):
        digest = key[len(prefix) :].partition("/")[0]
        if digest not in kept:
            by_digest.setdefault(digest, []).append(key)
    candidates = iter(by_digest.items())
    removed = freed = 0
    while batch := dict(islice(candidates, _DIGESTS_PER_TRANSACTION)):
        # Looked at again under the lock: a writer may have put the same content anew, or referred to it.
        with database.write() as session:
            exclude_references(session)
            for digest in batch.keys() - live(session, now, grace):
                bytes_ = _remove_old(objects, batch[digest], now - grace)
                if bytes_ is not None:
                    removed, freed = removed + 1, freed + bytes_
    return removed, freed


def _remove_old(objects: ObjectStore, keys: list[str], before: datetime) -> int | None:
    """Remove the objects if all are older than ``before``; returns their bytes, None if one is younger."""
    times = [objects.modified_at(key) for key in keys]
    if any(time is not None and time > before for time in times):
        return None
    total = 0
    # The manifest first: what is left after a kill is no segment any more.
    for key in sorted(keys, key=lambda each: not each.endswith("/manifest.json")):
        total += objects.size(key) or 0
        objects.delete(key)
    return total
