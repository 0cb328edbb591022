"""Work nobody asks for: compactions of spaces with many pending writes, a collection or a scrub at times."""

from __future__ import annotations

from datetime import datetime

from bedplate.wire.store import Job
from bedplate_registry.tokens import ADMIN_TEAM
from bedplate_store import compaction, jobs, snapshots, spaces
from bedplate_store.database import Database, WriteSession
from bedplate_store.spaces import SpaceKey

COLLECT_SECONDS = 6 * 3600
SCRUB_SECONDS = 7 * 24 * 3600


def plan_compactions(database: Database, now: datetime) -> list[Job]:
    """Create the compactions that are due; idempotency keys make a second caller find them."""
    with database.read() as session:
        due = compaction.due(session)
    if not due:
        return []
    planned = database.transact(lambda session: [_compact(session, space, now) for space in due])
    return [job for job in planned if job is not None]


def plan_upkeep(database: Database, now: datetime) -> list[Job]:
    """The collection of this quarter of a day and the scrub of this week; a second call finds them."""
    return database.transact(lambda session: [_collect(session, now), _scrub(session, now)])


def _compact(session: WriteSession, space: SpaceKey, now: datetime) -> Job | None:
    """None while an earlier compaction of the space is under way. A failed one waits for the next write."""
    recent = jobs.list(session, kind="compact", subject=str(space), limit=1)
    if recent and recent[0].state in ("queued", "running"):
        return None
    document = spaces.get_space(session, *space)
    return jobs.create(
        session,
        kind="compact",
        subject=str(space),
        team=ADMIN_TEAM,
        params=space._asdict(),
        stages=[
            jobs.Stage("compact", [jobs.PartitionSpec({}, max(1, document.rows + document.pending_rows))])
        ],
        idempotency_key=f"{space}:{snapshots.current_sequence(session, *space)}",
        now=now,
    )


def _collect(session: WriteSession, now: datetime) -> Job:
    return jobs.create(
        session,
        kind="collect",
        subject="objects",
        team=ADMIN_TEAM,
        params={},
        stages=[jobs.Stage("collect", [jobs.PartitionSpec({}, 1)])],
        unit="runs",
        idempotency_key=f"{int(now.timestamp()) // COLLECT_SECONDS}",
        now=now,
    )


def _scrub(session: WriteSession, now: datetime) -> Job:
    return jobs.create(
        session,
        kind="scrub",
        subject="objects",
        team=ADMIN_TEAM,
        params={},
        stages=[jobs.Stage("scrub", [jobs.PartitionSpec({}, 1)])],
        unit="runs",
        idempotency_key=f"{int(now.timestamp()) // SCRUB_SECONDS}",
        now=now,
    )
