"""The job ledger: what is to be done, in stages of partitions, and how far it is.

The ledger is the truth and messages only carry work: a message may be lost, doubled or late and changes
nothing but time. Leases hand the work out, the reconciler keeps it going.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.exc import IntegrityError

from bedplate.errors import Conflict, InvalidRequest, NotFound
from bedplate.wire.store import Job, JobProgress, JobState
from bedplate_store import ledger
from bedplate_store.database import ReadSession, WriteSession
from bedplate_store.tables.jobs import JobRow, PartitionRow, StageRow


@dataclass(frozen=True, slots=True)
class JobOfPartition:
    """What a message about a partition is sent by: empty where there is no such partition any more."""

    kind: str = ""
    origin: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PartitionSpec:
    """One piece of work: JSON-serialisable ``params`` and how many ``units`` of progress it is worth."""

    params: dict[str, Any]
    units: int


@dataclass(frozen=True, slots=True)
class Stage:
    """Partitions that may run side by side once every earlier stage is done; one without any is skipped."""

    name: str
    partitions: Sequence[PartitionSpec] = field(default_factory=tuple)


def create(
    session: WriteSession,
    *,
    kind: str,
    subject: str,
    team: str,
    params: dict[str, Any],
    stages: Sequence[Stage],
    now: datetime,
    unit: str = "rows",
    idempotency_key: str | None = None,
    max_attempts: int = 3,
    origin: Mapping[str, str] | None = None,
) -> Job:
    """Write a job and release its first stage; for a known idempotency key, return the job that has it.

    ``origin`` names what asked for it, for the logs and traces of those who work on it: ``request_id``, and
    the headers of a trace context such as ``traceparent``.

    Raises:
        InvalidRequest: there is no stage, or two of one name, or max_attempts is below 1.
        Conflict: the idempotency key belongs to a job with another subject.
    """
    names = [stage.name for stage in stages]
    if not names or len(set(names)) != len(names) or max_attempts < 1:
        raise InvalidRequest(
            "A job needs at least one stage, stages of different names, and max_attempts >= 1."
        )
    known = _find_by_key(session, team, kind, subject, idempotency_key)
    if known is not None:
        return known
    job = JobRow(
        id=f"job-{uuid.uuid4().hex}",
        kind=kind,
        subject=subject,
        team=team,
        state="queued",
        params=params,
        unit=unit,
        idempotency_key=idempotency_key,
        max_attempts=max_attempts,
        origin=dict(origin) if origin else None,
        created_at=now,
    )
    try:
        with session.begin_nested():
            session.add(job)
    except IntegrityError:
        # Another transaction took the idempotency key between our look and our write.
        known = _find_by_key(session, team, kind, subject, idempotency_key)
        if known is None:
            raise
        return known
    _add_stages(session, job.id, stages)
    ledger.release_stage(session, job, 0, now)
    session.flush()
    return get(session, job.id)


def get(session: ReadSession, job_id: str) -> Job:
    """The job with its progress.

    Raises:
        NotFound: there is no such job.
    """
    row = session.get(JobRow, job_id, populate_existing=True)
    if row is None:
        raise NotFound(f"There is no job {job_id!r}.", job=job_id)
    return _to_wire(session, [row])[0]


def list(
    session: ReadSession,
    *,
    state: JobState | None = None,
    kind: str | None = None,
    subject: str | None = None,
    limit: int = 100,
) -> Sequence[Job]:
    """Jobs, newest first."""
    query = select(JobRow).order_by(JobRow.created_at.desc(), JobRow.id.desc()).limit(limit)
    if state is not None:
        query = query.where(JobRow.state == state)
    if kind is not None:
        query = query.where(JobRow.kind == kind)
    if subject is not None:
        query = query.where(JobRow.subject == subject)
    return _to_wire(session, session.scalars(query).all())


def of_partition(session: ReadSession, partition_id: str) -> JobOfPartition:
    """Whose partition it is."""
    found = session.execute(
        select(JobRow.kind, JobRow.origin)
        .join(PartitionRow, PartitionRow.job_id == JobRow.id)
        .where(PartitionRow.id == partition_id)
    ).one_or_none()
    return JobOfPartition() if found is None else JobOfPartition(found[0], found[1] or {})


def cancel(session: WriteSession, job_id: str, now: datetime) -> Job:
    """End an active job; a job that has ended already stays as it is.

    Raises:
        NotFound: there is no such job.
    """
    job = ledger.lock_job(session, job_id)
    if job.state in ledger.ACTIVE_STATES:
        ledger.cancel(session, job, now)
        session.flush()
    return get(session, job_id)


def results(session: ReadSession, job_id: str, stage: str) -> Sequence[dict[str, Any]]:
    """What the partitions of a finished stage committed, by ordinal.

    Raises:
        NotFound: there is no such job or stage.
        Conflict: the stage is not done.
    """
    position = session.scalar(
        select(StageRow.position).where(StageRow.job_id == job_id, StageRow.name == stage)
    )
    if position is None:
        raise NotFound(f"There is no stage {stage!r} of a job {job_id!r}.", job=job_id, stage=stage)
    rows = session.execute(
        select(PartitionRow.state, PartitionRow.result)
        .where(PartitionRow.job_id == job_id, PartitionRow.stage_position == position)
        .order_by(PartitionRow.ordinal)
    ).all()
    if any(state != "done" for state, _ in rows):
        raise Conflict(
            f"Stage {stage!r} of job {job_id!r} is not done; wait for it.", job=job_id, stage=stage
        )
    return [result or {} for _, result in rows]


def _add_stages(session: WriteSession, job_id: str, stages: Sequence[Stage]) -> None:
    for position, stage in enumerate(stages):
        session.add(StageRow(job_id=job_id, position=position, name=stage.name))
        session.add_all(
            PartitionRow(
                id=f"{job_id}/{position}/{ordinal}",
                job_id=job_id,
                stage_position=position,
                ordinal=ordinal,
                params=partition.params,
                units=partition.units,
                done=0,
                state="waiting",
                attempt=0,
                fencing_token=0,
                sends=0,
            )
            for ordinal, partition in enumerate(stage.partitions)
        )
    session.flush()


def _find_by_key(
    session: ReadSession, team: str, kind: str, subject: str, idempotency_key: str | None
) -> Job | None:
    if idempotency_key is None:
        return None
    row = session.scalar(
        select(JobRow).where(
            JobRow.team == team, JobRow.kind == kind, JobRow.idempotency_key == idempotency_key
        )
    )
    if row is None:
        return None
    if row.subject != subject:
        raise Conflict(
            f"Idempotency key {idempotency_key!r} belongs to {kind} job {row.id} of {row.subject}; "
            f"use another key for {subject}.",
            job=row.id,
        )
    return _to_wire(session, [row])[0]


def _to_wire(session: ReadSession, rows: Sequence[JobRow]) -> Sequence[Job]:
    ids = [row.id for row in rows]
    totals = session.execute(
        select(
            StageRow.job_id,
            StageRow.name,
            func.coalesce(func.sum(PartitionRow.done), 0),
            func.coalesce(func.sum(PartitionRow.units), 0),
            func.coalesce(func.sum(PartitionRow.attempt), 0),
        )
        .outerjoin(
            PartitionRow,
            (PartitionRow.job_id == StageRow.job_id) & (PartitionRow.stage_position == StageRow.position),
        )
        .where(StageRow.job_id.in_(ids))
        .group_by(StageRow.job_id, StageRow.position, StageRow.name)
        .order_by(StageRow.job_id, StageRow.position)
    ).all()
    units = {row.id: row.unit for row in rows}
    progress: dict[str, Any] = {job_id: [] for job_id in ids}
    attempts = dict.fromkeys(ids, 0)
    for job_id, name, done, total, claims in totals:
        progress[job_id].append(JobProgress(stage=name, done=done, total=total, unit=units[job_id]))
        attempts[job_id] += int(claims)
    return [_job(row, progress[row.id], attempts[row.id]) for row in rows]


def _job(row: JobRow, progress: Sequence[JobProgress], attempts: int) -> Job:
    return Job.model_validate(
        {
            "id": row.id,
            "kind": row.kind,
            "subject": row.subject,
            "state": row.state,
            "team": row.team,
            "progress": progress,
            "attempts": attempts,
            "error": row.error,
            "result": row.result,
            "created_at": row.created_at,
            "started_at": row.started_at,
            "finished_at": row.finished_at,
        }
    )
