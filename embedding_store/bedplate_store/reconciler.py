"""Puts right what died: leases that expired, and work whose message got lost."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial

from sqlalchemy import select, update

from bedplate_store import ledger, outbox
from bedplate_store.database import Database, WriteSession
from bedplate_store.tables.jobs import PartitionRow

logger = logging.getLogger(__name__)

_LARGEST_RESEND_DOUBLING = 6


@dataclass(frozen=True, slots=True)
class Report:
    """What one round did, in partitions."""

    expired: int
    buried: int
    resent: int


def reconcile(database: Database, now: datetime, resend_after_seconds: float) -> Report:
    """Make partitions with expired leases due again (or bury them) and send lost messages again.

    A message counts as lost when its partition is due and unclaimed ``resend_after_seconds`` after it was
    queued. Each further one waits twice as long (64 times at most), so that a long queue does not fill with
    copies of itself.
    """
    expired, buried = _end_expired_leases(database, now)
    return Report(expired=expired, buried=buried, resent=_resend(database, now, resend_after_seconds))


def _end_expired_leases(database: Database, now: datetime) -> tuple[int, int]:
    with database.read() as session:
        found = session.execute(
            select(PartitionRow.id, PartitionRow.job_id)
            .where(PartitionRow.state == "leased", PartitionRow.lease_expires_at <= now)
            .order_by(PartitionRow.lease_expires_at, PartitionRow.id)
        ).all()
    # One transaction each, so that none waits for all.
    ended = []
    for partition_id, job_id in found:
        buried = database.transact(partial(_end_lease, partition_id=partition_id, job_id=job_id, now=now))
        if buried is not None:
            ended.append(buried)
            outcome = "its job has failed" if buried else "it is due again"
            logger.warning("the lease on partition %s expired: %s", partition_id, outcome)
    return len(ended), sum(ended)


def _end_lease(session: WriteSession, partition_id: str, job_id: str, now: datetime) -> bool | None:
    """Whether the partition was buried; None: its lease is not expired any more."""
    job = ledger.lock_job(session, job_id)
    partition = session.get_one(PartitionRow, partition_id, populate_existing=True)
    if partition.state != "leased" or partition.lease_expires_at is None or partition.lease_expires_at > now:
        return None  # heartbeat, commit or claim came first
    error = f"the lease of {partition.lease_owner} expired: the worker died, froze or lost its way here"
    return ledger.retry_or_bury(session, job, partition, error, now, now)


def _resend(database: Database, now: datetime, resend_after_seconds: float) -> int:
    with database.read() as session:
        candidates = session.execute(
            select(PartitionRow.id, PartitionRow.job_id, PartitionRow.queued_at, PartitionRow.sends).where(
                PartitionRow.state == "due",
                PartitionRow.due_at <= now,
                PartitionRow.queued_at <= now - timedelta(seconds=resend_after_seconds),
            )
        ).all()
    lost: dict[str, list[str]] = {}
    for partition_id, job_id, queued_at, sends in candidates:
        if queued_at is None or now - queued_at >= _patience(sends, resend_after_seconds):
            lost.setdefault(job_id, []).append(partition_id)
    return sum(_resend_of_job(database, job_id, ids, now) for job_id, ids in lost.items())


def _resend_of_job(database: Database, job_id: str, partition_ids: list[str], now: datetime) -> int:

    def send_again(session: WriteSession) -> int:
        ledger.lock_job(session, job_id)
        still_due = session.scalars(
            update(PartitionRow)
            .where(PartitionRow.id.in_(partition_ids), PartitionRow.state == "due")
            .values(queued_at=now, sends=PartitionRow.sends + 1)
            .returning(PartitionRow.id)
            .execution_options(synchronize_session=False)
        ).all()
        outbox.enqueue(session, outbox.WORK_TASK, [[partition_id] for partition_id in sorted(still_due)], now)
        return len(still_due)

    return database.transact(send_again)


def _patience(sends: int, resend_after_seconds: float) -> timedelta:
    doublings = min(max(sends - 1, 0), _LARGEST_RESEND_DOUBLING)
    return timedelta(seconds=resend_after_seconds * 2.0**doublings)
