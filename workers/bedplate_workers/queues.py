"""Queues as the ledger sees them; the broker's own lengths hide what workers have prefetched."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import func, select

from bedplate_store.database import ReadSession
from bedplate_store.tables.jobs import JobRow, PartitionRow

QUEUES = ("cpu", "gpu")
_GPU_KINDS = frozenset({"embed"})


def queue_of(kind: str) -> str:
    """The queue whose workers do jobs of this kind; unknown ones end without effect in "cpu"."""
    return "gpu" if kind in _GPU_KINDS else "cpu"


@dataclass(frozen=True)
class Backlog:
    """Partitions of one queue: how many wait, for how long the oldest of them has, how many are worked on."""

    due: int = 0
    oldest_seconds: float = 0.0
    leased: int = 0


def backlogs(session: ReadSession, now: datetime) -> dict[str, Backlog]:
    """The backlog of every queue, empty ones too; partitions that wait for a retry are not due yet."""
    rows = session.execute(
        select(JobRow.kind, PartitionRow.state, func.count(), func.min(PartitionRow.due_at))
        .join(JobRow, PartitionRow.job_id == JobRow.id)
        .where(
            (PartitionRow.state == "leased") | ((PartitionRow.state == "due") & (PartitionRow.due_at <= now))
        )
        .group_by(JobRow.kind, PartitionRow.state)
    ).all()
    found = {queue: Backlog() for queue in QUEUES}
    for kind, state, count, oldest in rows:
        queue = queue_of(kind)
        before = found[queue]
        if state == "leased":
            found[queue] = Backlog(before.due, before.oldest_seconds, before.leased + count)
        elif oldest is not None:
            age = max(before.oldest_seconds, (now - oldest).total_seconds())
            found[queue] = Backlog(before.due + count, age, before.leased)
    return found
