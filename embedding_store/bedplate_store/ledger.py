"""The transitions of a job that leases, cancellation and reconciliation share.

Every one of them first locks the job's row, and only then touches its partitions: two partitions that end at
the same moment cannot both believe the other is still running, and nobody deadlocks.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import func, select, update

from bedplate.errors import NotFound
from bedplate_store import outbox
from bedplate_store.database import WriteSession
from bedplate_store.tables.jobs import JobRow, PartitionRow, StageRow

ACTIVE_STATES = ("queued", "running")
_OPEN_PARTITIONS = ("waiting", "due", "leased")
_FIRST_RETRY_SECONDS = 1.0
_LONGEST_RETRY_SECONDS = 300.0


def lock_job(session: WriteSession, job_id: str) -> JobRow:
    """The job's row, locked until the transaction ends.

    Raises:
        NotFound: there is no such job.
    """
    job = session.get(JobRow, job_id, with_for_update=True, populate_existing=True)
    if job is None:
        raise NotFound(f"There is no job {job_id!r}.", job=job_id)
    return job


def retry_seconds(attempt: int) -> float:
    """How long a partition waits after its ``attempt``-th failure: 1, 2, 4 ... 300 seconds."""
    return float(min(_FIRST_RETRY_SECONDS * 2.0 ** (attempt - 1), _LONGEST_RETRY_SECONDS))


def release_stage(session: WriteSession, job: JobRow, position: int, now: datetime) -> None:
    """Make the partitions of the first stage from ``position`` on that has any due, or end the job."""
    stages = session.scalar(select(func.count()).select_from(StageRow).where(StageRow.job_id == job.id)) or 0
    for candidate in range(position, stages):
        ids = session.scalars(
            select(PartitionRow.id)
            .where(PartitionRow.job_id == job.id, PartitionRow.stage_position == candidate)
            .order_by(PartitionRow.ordinal)
        ).all()
        if ids:
            session.execute(
                update(PartitionRow)
                .where(PartitionRow.job_id == job.id, PartitionRow.stage_position == candidate)
                .values(state="due", due_at=now, queued_at=now, sends=1)
                .execution_options(synchronize_session=False)
            )
            outbox.enqueue(session, outbox.WORK_TASK, [[partition_id] for partition_id in ids], now)
            return
    _finish(session, job, "succeeded", now, result=_last_result(session, job.id))


def complete_stage_if_done(session: WriteSession, job: JobRow, position: int, now: datetime) -> None:
    """Release the next stage when no partition of this one is left; the job must be locked."""
    open_partitions = session.scalar(
        select(func.count())
        .select_from(PartitionRow)
        .where(
            PartitionRow.job_id == job.id,
            PartitionRow.stage_position == position,
            PartitionRow.state != "done",
        )
    )
    if open_partitions == 0:
        release_stage(session, job, position + 1, now)


def retry_or_bury(
    session: WriteSession, job: JobRow, partition: PartitionRow, error: str, due_at: datetime, now: datetime
) -> bool:
    """Make a failed partition due again at ``due_at``, or, at max_attempts, fail the job with its reason.

    Returns:
        whether the partition was buried.
    """
    partition.error = error
    partition.done = 0
    partition.lease_owner = None
    partition.lease_expires_at = None
    if partition.attempt < job.max_attempts:
        partition.state = "due"
        partition.due_at = due_at
        partition.queued_at = due_at
        partition.sends = 1
        outbox.enqueue(session, outbox.WORK_TASK, [[partition.id]], due_at)
        return False
    partition.state = "dead"
    session.flush()
    stage = session.get_one(StageRow, (job.id, partition.stage_position))
    where = f"Partition {partition.ordinal} of stage {stage.name}"
    _finish(session, job, "failed", now, error=f"{where} failed {partition.attempt} times: {error}")
    return True


def cancel(session: WriteSession, job: JobRow, now: datetime) -> None:
    """End an active job; whoever holds a lease on one of its partitions loses it."""
    _finish(session, job, "cancelled", now)


def retry_time(attempt: int, now: datetime) -> datetime:
    return now + timedelta(seconds=retry_seconds(attempt))


def _finish(
    session: WriteSession,
    job: JobRow,
    state: str,
    now: datetime,
    *,
    error: str | None = None,
    result: dict[str, Any] | None = None,
) -> None:
    job.state = state
    job.error = error
    job.result = result
    job.finished_at = now
    session.execute(
        update(PartitionRow)
        .where(PartitionRow.job_id == job.id, PartitionRow.state.in_(_OPEN_PARTITIONS))
        .values(state="cancelled", lease_owner=None, lease_expires_at=None)
        .execution_options(synchronize_session="fetch")
    )


def _last_result(session: WriteSession, job_id: str) -> dict[str, Any] | None:
    return session.scalar(
        select(PartitionRow.result)
        .where(PartitionRow.job_id == job_id)
        .order_by(PartitionRow.stage_position.desc(), PartitionRow.ordinal.desc())
        .limit(1)
    )
