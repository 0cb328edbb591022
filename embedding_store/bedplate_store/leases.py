"""Leases on partitions: one holder at a time, and a token that tells a late holder it is late.

A worker that freezes keeps believing in its lease. Each claim therefore raises the partition's fencing token,
and a heartbeat or commit names the token it was given: once the lease has expired or passed on, it raises
LeaseLost and the transaction it was part of is rolled back.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, and_, or_, select, update

from bedplate.errors import LeaseLost
from bedplate_store import ledger, outbox
from bedplate_store.database import Database, WriteSession
from bedplate_store.tables.jobs import JobRow, PartitionRow, StageRow


@dataclass(frozen=True, slots=True)
class Claim:
    """A lease as its holder knows it; ``attempt`` counts from 1.

    Attributes:
        unit: what ``units`` counts, e.g. rows.
        origin: see :func:`bedplate_store.jobs.create`.
    """

    partition_id: str
    job_id: str
    kind: str
    stage: str
    ordinal: int
    subject: str
    team: str
    unit: str
    origin: Mapping[str, str]
    params: dict[str, Any]
    job_params: dict[str, Any]
    units: int
    fencing_token: int
    attempt: int


def claim(
    database: Database, partition_id: str, owner: str, lease_seconds: float, now: datetime
) -> Claim | None:
    """Take the partition for ``lease_seconds``; None: it is done, not due, held or out of attempts."""

    def take(session: WriteSession) -> Claim | None:
        job_id = session.scalar(select(PartitionRow.job_id).where(PartitionRow.id == partition_id))
        if job_id is None:
            return None
        job = ledger.lock_job(session, job_id)
        if job.state not in ledger.ACTIVE_STATES:
            return None
        taken = session.execute(
            update(PartitionRow)
            .where(PartitionRow.id == partition_id, _claimable(now), PartitionRow.attempt < job.max_attempts)
            .values(
                state="leased",
                attempt=PartitionRow.attempt + 1,
                fencing_token=PartitionRow.fencing_token + 1,
                lease_owner=owner,
                lease_expires_at=now + timedelta(seconds=lease_seconds),
                done=0,
                sends=0,
            )
            .returning(PartitionRow)
            .execution_options(synchronize_session=False, populate_existing=True)
        ).scalar_one_or_none()
        if taken is None:
            return None
        if job.state == "queued":
            job.state, job.started_at = "running", now
        stage = session.get_one(StageRow, (job_id, taken.stage_position))
        return _to_claim(job, stage, taken)

    return database.transact(take)


def heartbeat(
    database: Database, claim: Claim, lease_seconds: float, now: datetime, done: int | None = None
) -> None:
    """Hold the lease for another ``lease_seconds`` and tell how many units are ``done``.

    Raises:
        LeaseLost: the lease expired, passed on, or the job ended; stop working.
    """
    values: dict[str, Any] = {"lease_expires_at": now + timedelta(seconds=lease_seconds)}
    if done is not None:
        values["done"] = min(done, claim.units)
    database.transact(lambda session: _update_held(session, claim, now, values))


def commit(session: WriteSession, claim: Claim, result: dict[str, Any], now: datetime) -> None:
    """End the partition with its JSON-serialisable ``result``, in the caller's transaction.

    The last partition of a stage releases the next stage, the last of all ends the job. Whatever else the
    transaction wrote becomes visible together with it, or not at all.

    Raises:
        LeaseLost: the lease expired, passed on, or the job ended; roll back.
    """
    job = ledger.lock_job(session, claim.job_id)
    _update_held(
        session,
        claim,
        now,
        {
            "state": "done",
            "result": result,
            "error": None,
            "done": PartitionRow.units,
            "lease_owner": None,
            "lease_expires_at": None,
        },
    )
    position = session.execute(
        select(PartitionRow.stage_position).where(PartitionRow.id == claim.partition_id)
    ).scalar_one()
    ledger.complete_stage_if_done(session, job, position, now)
    session.flush()


def fail(database: Database, claim: Claim, error: str, now: datetime) -> bool:
    """Give the partition back: it is tried again after a while, or, at max_attempts, the job fails.

    Returns:
        whether it failed the job.

    Raises:
        LeaseLost: the lease expired, passed on, or the job ended; nothing is left to give back.
    """

    def give_back(session: WriteSession) -> bool:
        job = ledger.lock_job(session, claim.job_id)
        partition = session.get_one(PartitionRow, claim.partition_id, populate_existing=True)
        if not _holds(partition, claim, now):
            raise _lost(claim)
        due_at = ledger.retry_time(claim.attempt, now)
        return ledger.retry_or_bury(session, job, partition, error, due_at, now)

    return database.transact(give_back)


def release(database: Database, claim: Claim, now: datetime) -> None:
    """Give the partition back untried, as a worker told to stop does: due at once, no attempt counted.

    Raises:
        LeaseLost: the lease expired, passed on, or the job ended; nothing is left to give back.
    """

    def give_back(session: WriteSession) -> None:
        ledger.lock_job(session, claim.job_id)
        _update_held(
            session,
            claim,
            now,
            {
                "state": "due",
                "attempt": PartitionRow.attempt - 1,
                "done": 0,
                "due_at": now,
                "queued_at": now,
                "sends": 1,
                "lease_owner": None,
                "lease_expires_at": None,
            },
        )
        outbox.enqueue(session, outbox.WORK_TASK, [[claim.partition_id]], now)

    database.transact(give_back)


def _claimable(now: datetime) -> ColumnElement[bool]:
    return or_(
        and_(PartitionRow.state == "due", PartitionRow.due_at <= now),
        and_(PartitionRow.state == "leased", PartitionRow.lease_expires_at <= now),
    )


def _update_held(session: WriteSession, claim: Claim, now: datetime, values: dict[str, Any]) -> None:
    updated = session.execute(
        update(PartitionRow)
        .where(
            PartitionRow.id == claim.partition_id,
            PartitionRow.state == "leased",
            PartitionRow.fencing_token == claim.fencing_token,
            PartitionRow.lease_expires_at > now,
        )
        .values(**values)
        .returning(PartitionRow.id)
        .execution_options(synchronize_session=False)
    ).scalar_one_or_none()
    if updated is None:
        raise _lost(claim)


def _holds(partition: PartitionRow, claim: Claim, now: datetime) -> bool:
    return (
        partition.state == "leased"
        and partition.fencing_token == claim.fencing_token
        and partition.lease_expires_at is not None
        and partition.lease_expires_at > now
    )


def _lost(claim: Claim) -> LeaseLost:
    return LeaseLost(
        f"Attempt {claim.attempt} at partition {claim.partition_id} no longer holds its lease: it expired, "
        "passed to another worker, or the job ended. Drop the work; the ledger has already seen to it.",
        partition=claim.partition_id,
        fencing_token=claim.fencing_token,
    )


def _to_claim(job: JobRow, stage: StageRow, partition: PartitionRow) -> Claim:
    return Claim(
        partition_id=partition.id,
        job_id=job.id,
        kind=job.kind,
        stage=stage.name,
        ordinal=partition.ordinal,
        subject=job.subject,
        team=job.team,
        unit=job.unit,
        origin=job.origin or {},
        params=partition.params,
        job_params=job.params,
        units=partition.units,
        fencing_token=partition.fencing_token,
        attempt=partition.attempt,
    )
