"""Training sets: a definition, the pins that make it reproducible, and the files it was materialised into."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from hashlib import sha256
from pathlib import PurePosixPath
from typing import Any

from sqlalchemy import select

from bedplate.errors import Conflict, InvalidRequest, NotFound
from bedplate.references import VersionReference
from bedplate.wire.store import TrainingSet, TrainingSetCreate
from bedplate_store import jobs, sequences
from bedplate_store.database import Database, ReadSession, WriteSession
from bedplate_store.objects import ObjectStore
from bedplate_store.tables.jobs import JobRow
from bedplate_store.tables.records import LogSegmentRow, TrainingSetRow
from bedplate_store.times import instant, microseconds
from bedplate_store.training_files import FileEntry, read_files, write_files
from bedplate_store.training_joins import Pins, join_partition, parts_prefix

__all__ = [
    "FileEntry",
    "Pins",
    "PreparedTrainingSet",
    "create",
    "discard_parts",
    "files",
    "get",
    "join_partition",
    "list",
    "prepare",
    "publish",
    "read_files",
]

_FORMAT = "bedplate-training-set/1"
_ROWS_PER_PARTITION = 200_000
_MAX_PARTITIONS = 256


@dataclass(frozen=True, slots=True)
class PreparedTrainingSet:
    """A training set whose files and manifest are written, ready to be published."""

    id: str
    digest: str
    manifest_key: str
    rows: int
    requests: int
    unlabelled: int
    incomplete: int
    files: tuple[FileEntry, ...]


def create(
    session: WriteSession,
    body: TrainingSetCreate,
    *,
    team: str,
    now: datetime,
    origin: Mapping[str, str] | None = None,
) -> TrainingSet:
    """Define a training set, pin it to what is known now, and start the job that builds it; ``origin``: see
    :func:`bedplate_store.jobs.create`.

    What is not sealed yet is not in it: seal the impression log first.

    Raises:
        InvalidRequest: the window is empty, a version is named twice or by an alias.
    """
    _check(body)
    definition = body.model_copy(update={"attribution_end": body.attribution_end or now})
    pins = Pins(
        event=sequences.current(session, "event"),
        outcome=sequences.current(session, "outcome"),
        log_segment=sequences.current(session, "log_segment"),
    )
    training_set_id = f"ts-{uuid.uuid4().hex}"
    partitions = _plan(session, training_set_id, definition, pins)
    job = jobs.create(
        session,
        kind="training_set",
        subject=training_set_id,
        team=team,
        params={"training_set": training_set_id},
        stages=[
            jobs.Stage("join", partitions),
            jobs.Stage(
                "publish",
                [
                    jobs.PartitionSpec(
                        {"training_set": training_set_id}, sum(partition.units for partition in partitions)
                    )
                ],
            ),
        ],
        now=now,
        origin=origin,
    )
    session.add(
        TrainingSetRow(
            id=training_set_id,
            name=body.name,
            surface=body.surface,
            team=team,
            definition=definition.model_dump(mode="json"),
            pins=asdict(pins),
            job_id=job.id,
            created_at=microseconds(now),
        )
    )
    session.flush()
    return get(session, training_set_id)


def get(session: ReadSession, training_set_id: str) -> TrainingSet:
    """The training set and how far it is.

    Raises:
        NotFound: there is no such training set.
    """
    row = _row(session, training_set_id)
    return _to_wire(row, session.get_one(JobRow, row.job_id).state)


def list(session: ReadSession, *, surface: str | None = None, limit: int = 100) -> Sequence[TrainingSet]:
    """Training sets, newest first."""
    query = (
        select(TrainingSetRow, JobRow.state)
        .join(JobRow, JobRow.id == TrainingSetRow.job_id)
        .order_by(TrainingSetRow.created_at.desc(), TrainingSetRow.id.desc())
        .limit(limit)
    )
    if surface is not None:
        query = query.where(TrainingSetRow.surface == surface)
    return [_to_wire(row, state) for row, state in session.execute(query)]


def prepare(
    database: Database, objects: ObjectStore, training_set_id: str, parts: Sequence[dict[str, Any]]
) -> PreparedTrainingSet:
    """Join the parts (the results of stage "join", by ordinal) into files and write the manifest, last.

    The same rows always give the same files and the same digest, however the work was cut into parts.

    Raises:
        NotFound: there is no such training set, or a part is gone.
        InternalError: a part was damaged in storage.
    """
    with database.read() as session:
        row = _row(session, training_set_id)
    written = write_files(objects, training_set_id, parts)
    content = [[entry.name, entry.table, entry.rows, entry.bytes, entry.sha256] for entry in written]
    digest = sha256(json.dumps([_FORMAT, content], separators=(",", ":")).encode()).hexdigest()
    counts = {
        name: sum(part[name] for part in parts) for name in ("rows", "requests", "unlabelled", "incomplete")
    }
    manifest = {
        "format": _FORMAT,
        "training_set": training_set_id,
        "definition": row.definition,
        "pins": row.pins,
        "counts": counts,
        "digest": digest,
        "files": [asdict(entry) for entry in written],
    }
    document = json.dumps(manifest, indent=1, sort_keys=True).encode()
    manifest_key = f"training-sets/{training_set_id}/{sha256(document).hexdigest()}.json"
    objects.put(manifest_key, document)
    return PreparedTrainingSet(
        id=training_set_id, digest=digest, manifest_key=manifest_key, files=tuple(written), **counts
    )


def publish(session: WriteSession, prepared: PreparedTrainingSet) -> dict[str, Any]:
    """Make the files visible; the answer is the job's result. Publishing them again changes nothing.

    Raises:
        NotFound: there is no such training set.
        Conflict: it is published with other content.
    """
    row = _row(session, prepared.id)
    if row.digest not in (None, prepared.digest):
        raise Conflict(
            f"Training set {prepared.id} is published with digest {row.digest}, not {prepared.digest}; "
            "create another one."
        )
    row.digest = prepared.digest
    row.manifest_key = prepared.manifest_key
    row.rows = prepared.rows
    row.requests = prepared.requests
    row.unlabelled = prepared.unlabelled
    row.incomplete = prepared.incomplete
    row.bytes = sum(entry.bytes for entry in prepared.files)
    session.flush()
    return {
        "training_set": prepared.id,
        "digest": prepared.digest,
        "rows": prepared.rows,
        "requests": prepared.requests,
        "unlabelled": prepared.unlabelled,
        "incomplete": prepared.incomplete,
    }


def files(session: ReadSession, objects: ObjectStore, training_set_id: str) -> Sequence[FileEntry]:
    """The files of a published training set, in order; ``rows-i`` and ``requests-i`` hold the same requests.

    Raises:
        NotFound: there is no such training set.
        Conflict: it is not ready.
        ObjectDamaged: the list of them is not the one that was written.
    """
    row = _row(session, training_set_id)
    if row.manifest_key is None:
        state = _to_wire(row, session.get_one(JobRow, row.job_id).state).state
        raise Conflict(
            f"Training set {training_set_id} is {state}; `bedplate jobs watch {row.job_id}` tells more.",
            job=row.job_id,
        )
    manifest = json.loads(objects.get(row.manifest_key, sha256=PurePosixPath(row.manifest_key).stem))
    return [FileEntry(**entry) for entry in manifest["files"]]


def discard_parts(database: Database, objects: ObjectStore) -> int:
    """Delete the joined parts of every training set whose job has ended; how many objects were deleted."""
    with database.read() as session:
        ended = session.scalars(
            select(TrainingSetRow.id)
            .join(JobRow, JobRow.id == TrainingSetRow.job_id)
            .where(JobRow.state.in_(("succeeded", "failed", "cancelled")))
        ).all()
    deleted = 0
    for training_set_id in ended:
        for key in [*objects.list(parts_prefix(training_set_id))]:
            objects.delete(key)
            deleted += 1
    return deleted


def _plan(
    session: ReadSession, training_set_id: str, definition: TrainingSetCreate, pins: Pins
) -> Sequence[jobs.PartitionSpec]:
    """Cut the window where the log's segments begin, into parts of about 200,000 logged rows."""
    start_us, end_us = microseconds(definition.window_start), microseconds(definition.window_end)
    segments = session.execute(
        select(LogSegmentRow.served_first, LogSegmentRow.rows)
        .where(
            LogSegmentRow.surface == definition.surface,
            LogSegmentRow.served_first < end_us,
            LogSegmentRow.served_last >= start_us,
            LogSegmentRow.sequence <= pins.log_segment,
        )
        .order_by(LogSegmentRow.served_first, LogSegmentRow.sequence)
    ).all()
    total = sum(rows for _, rows in segments)
    wanted = max(_ROWS_PER_PARTITION, -(-total // _MAX_PARTITIONS))
    cuts, units, gathered = [start_us], [], 0
    for served_first, rows in segments:
        if gathered >= wanted and served_first > cuts[-1]:
            cuts.append(served_first)
            units.append(gathered)
            gathered = 0
        gathered += rows
    cuts.append(end_us)
    units.append(gathered)
    return [
        jobs.PartitionSpec({"training_set": training_set_id, "start_us": first, "end_us": last}, count)
        for first, last, count in zip(cuts[:-1], cuts[1:], units, strict=True)
    ]


def _check(body: TrainingSetCreate) -> None:
    if body.window_start >= body.window_end:
        raise InvalidRequest("The window is empty: window_start must come before window_end.")
    if len(set(body.versions)) != len(body.versions):
        raise InvalidRequest("A version is named twice; name each one once.")
    for version in body.versions:
        if VersionReference.parse(version).number is None:
            raise InvalidRequest(f"{version!r} is an alias; a training set is pinned to numbers, as core@7.")


def _row(session: ReadSession, training_set_id: str) -> TrainingSetRow:
    row = session.get(TrainingSetRow, training_set_id)
    if row is None:
        raise NotFound(f"There is no training set {training_set_id!r}.", training_set=training_set_id)
    return row


def _to_wire(row: TrainingSetRow, job_state: str) -> TrainingSet:
    state = "building"
    if row.digest is not None:
        state = "ready"
    elif job_state in ("failed", "cancelled"):
        state = "failed"
    return TrainingSet.model_validate(
        {
            **row.definition,
            "id": row.id,
            "team": row.team,
            "state": state,
            "job": row.job_id,
            "rows": row.rows,
            "requests": row.requests,
            "unlabelled": row.unlabelled,
            "incomplete": row.incomplete,
            "bytes": row.bytes,
            "digest": row.digest,
            "created_at": instant(row.created_at),
        }
    )
