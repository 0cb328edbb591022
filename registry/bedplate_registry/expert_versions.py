"""Versions of experts: uploaded like those of foundations, each pinned to a foundation version and space."""

from __future__ import annotations

import builtins
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path

from sqlalchemy import and_, func, select
from sqlalchemy.sql import ColumnElement

from bedplate.errors import Conflict, InvalidRequest, NotFound, VersionNotReady
from bedplate.references import VersionReference
from bedplate.wire.registry import ExpertVersion, ExpertVersionCreate, FileManifest, UploadStatus, Version
from bedplate_registry import uploads, versions
from bedplate_registry.blobs import BlobStore
from bedplate_registry.checkpoint_files import CheckpointPolicy
from bedplate_registry.checks import check_text, fetch, try_insert
from bedplate_registry.database import Database, ReadSession, WriteSession
from bedplate_registry.numbers import create_numbered, number_taken
from bedplate_registry.tables import CheckpointRow, ExpertRow, ExpertVersionRow, ServingRow


def create(
    database: Database, expert: str, document: ExpertVersionCreate, now: datetime, policy: CheckpointPolicy
) -> ExpertVersion:
    """A draft with the next number; when others take that number meanwhile, the one after it.

    Raises: as ``create_draft``.
    """
    return create_numbered(
        database, lambda session: _try_create(session, expert, document, now, policy), expert
    )


def create_draft(
    session: WriteSession, expert: str, document: ExpertVersionCreate, now: datetime, policy: CheckpointPolicy
) -> ExpertVersion:
    """A draft within the caller's transaction; ``create`` is the same with retries.

    An alias in ``pinned_version`` is resolved now: the pin is always a number.

    Raises:
        NotFound: no such expert, or the pinned version does not exist or has no such space.
        VersionNotReady: the pinned version is a draft or retired.
        CheckpointInvalid, InvalidRequest: the document announces what cannot become a version.
        Conflict: another transaction took the number; try again in a fresh one.
    """
    created = _try_create(session, expert, document, now, policy)
    if created is None:
        raise number_taken(expert)
    return created


def amend_draft(
    session: WriteSession, expert: str, version: int, document: ExpertVersionCreate, policy: CheckpointPolicy
) -> ExpertVersion:
    """Replace what a draft announces; parts of unchanged files are kept.

    Raises:
        VersionImmutable: it is finalised. Otherwise as ``create_draft``.
    """
    row = _row(session, expert, version)
    uploads.amend(
        session,
        row.checkpoint_id,
        _label(expert, version),
        document.signature,
        document.files,
        document.metrics,
        document.description,
        policy,
    )
    _pin(session, row, document)
    session.flush()
    return get(session, expert, version)


def receive_part(
    database: Database,
    blobs: BlobStore,
    expert: str,
    version: int,
    file: str,
    part: int,
    data: Iterable[bytes] | bytes,
) -> UploadStatus:
    """Take one part of a draft's file. Raises: as ``uploads.receive_part``."""
    checkpoint = _checkpoint(database, expert, version)
    return uploads.receive_part(database, blobs, checkpoint, _label(expert, version), file, part, data)


def upload_status(session: ReadSession, expert: str, version: int) -> UploadStatus:
    """Raises: NotFound."""
    return uploads.status(session, _row(session, expert, version).checkpoint_id)


def finalise(
    database: Database,
    blobs: BlobStore,
    expert: str,
    version: int,
    now: datetime,
    policy: CheckpointPolicy,
    scratch: Path | None = None,
) -> ExpertVersion:
    """Verify the upload and make the version immutable. Raises: as ``uploads.finalise``."""
    checkpoint = _checkpoint(database, expert, version)
    uploads.finalise(database, blobs, checkpoint, _label(expert, version), now, policy, scratch)
    with database.read() as session:
        return get(session, expert, version)


def get(session: ReadSession, expert: str, version: int) -> ExpertVersion:
    """Raises: NotFound."""
    _row(session, expert, version)
    return _documents(session, ExpertVersionRow.expert == expert, ExpertVersionRow.number == version)[0]


def list(session: ReadSession, expert: str) -> builtins.list[ExpertVersion]:
    """Every version, drafts too, oldest first. Raises: NotFound where there is no such expert."""
    fetch(session, ExpertRow, expert, f"expert {expert!r}")
    return _documents(session, ExpertVersionRow.expert == expert)


def retire(session: WriteSession, expert: str, version: int, now: datetime) -> ExpertVersion:
    """It will never serve again. Retiring twice changes nothing.

    Raises:
        VersionNotReady: it is a draft. Conflict: it serves.
    """
    label = _label(expert, version)
    checkpoint = versions.lock_checkpoint(session, _row(session, expert, version).checkpoint_id, label)
    if checkpoint.state == "draft":
        raise VersionNotReady(f"{label} is a draft and was never in use.")
    serving = session.get(ServingRow, expert)
    if serving is not None and serving.version == version:
        raise Conflict(f"{label} serves; let another version serve first.")
    if checkpoint.state != "retired":
        checkpoint.state, checkpoint.retired_at = "retired", now
        session.flush()
    return get(session, expert, version)


def file_object(session: ReadSession, expert: str, version: int, name: str) -> tuple[str, FileManifest]:
    """Object key and manifest of a finalised file. Raises: VersionNotReady, NotFound."""
    row = _row(session, expert, version)
    return uploads.file_object(session, row.checkpoint_id, _label(expert, version), name)


def require_servable(session: WriteSession, expert: str, version: int) -> None:
    """Whether it may serve; it and the version it is pinned to stay ready until the transaction ends.

    Raises:
        NotFound, VersionNotReady.
    """
    label = _label(expert, version)
    row = _row(session, expert, version)
    state = versions.lock_checkpoint(session, row.checkpoint_id, label).state
    if state != "ready":
        raise VersionNotReady(f"{label} is {state}; only a finalised version that is not retired can serve.")
    if row.pinned_foundation is not None and row.pinned_number is not None:
        versions.require_ready(session, row.pinned_foundation, row.pinned_number)


def pins(session: ReadSession, surface: str) -> dict[str, str | None]:
    """What every expert version of a surface is pinned to: ``{"ranker@3": "core@7"}``; None: to nothing."""
    query = (
        select(ExpertVersionRow)
        .join(ExpertRow, ExpertRow.name == ExpertVersionRow.expert)
        .where(ExpertRow.surface == surface)
    )
    return {_label(row.expert, row.number): _pinned(row) for row in session.scalars(query)}


def _try_create(
    session: WriteSession, expert: str, document: ExpertVersionCreate, now: datetime, policy: CheckpointPolicy
) -> ExpertVersion | None:
    surface = fetch(session, ExpertRow, expert, f"expert {expert!r}").surface
    check_text(training_set=document.training_set)
    latest = session.scalar(
        select(func.max(ExpertVersionRow.number)).where(ExpertVersionRow.expert == expert)
    )
    checkpoint = uploads.new_checkpoint(
        document.signature, document.files, document.metrics, document.description, now, policy
    )
    row = ExpertVersionRow(expert=expert, number=(latest or 0) + 1, checkpoint_id=checkpoint.id)
    _pin(session, row, document)
    return _document(row, checkpoint, surface) if try_insert(session, checkpoint, row) else None


def _pin(session: WriteSession, row: ExpertVersionRow, document: ExpertVersionCreate) -> None:
    if (document.pinned_version is None) != (document.pinned_space is None):
        raise InvalidRequest("pinned_version and pinned_space go together: give both or neither.")
    check_text(training_set=document.training_set)
    row.training_set = document.training_set
    row.pinned_foundation = row.pinned_number = row.pinned_space = None
    if document.pinned_version is None or document.pinned_space is None:
        return
    pinned = _pinnable(session, document.pinned_version, document.pinned_space)
    row.pinned_foundation, row.pinned_number = pinned.foundation, pinned.version
    row.pinned_space = document.pinned_space


def _pinnable(session: WriteSession, reference: str, space: str) -> Version:
    named = versions.resolve(session, VersionReference.parse(reference))
    ready = versions.require_ready(session, named.foundation, named.version)
    if space not in ready.signature.spaces:
        raise NotFound(
            f"{ready.reference} has no space {space!r}; it has {', '.join(sorted(ready.signature.spaces))}."
        )
    return ready


def _label(expert: str, version: int) -> str:
    return f"{expert}@{version}"


def _row(session: ReadSession, expert: str, version: int) -> ExpertVersionRow:
    return fetch(session, ExpertVersionRow, (expert, version), f"expert version {_label(expert, version)}")


def _checkpoint(database: Database, expert: str, version: int) -> str:
    with database.read() as session:
        return _row(session, expert, version).checkpoint_id


def _pinned(row: ExpertVersionRow) -> str | None:
    return f"{row.pinned_foundation}@{row.pinned_number}" if row.pinned_foundation is not None else None


def _documents(session: ReadSession, *conditions: ColumnElement[bool]) -> builtins.list[ExpertVersion]:
    query = (
        select(ExpertVersionRow, CheckpointRow, ExpertRow.surface)
        .join(CheckpointRow, CheckpointRow.id == ExpertVersionRow.checkpoint_id)
        .join(ExpertRow, ExpertRow.name == ExpertVersionRow.expert)
        .where(and_(*conditions))
        .order_by(ExpertVersionRow.expert, ExpertVersionRow.number)
    )
    return [_document(row, checkpoint, surface) for row, checkpoint, surface in session.execute(query)]


def _document(row: ExpertVersionRow, checkpoint: CheckpointRow, surface: str) -> ExpertVersion:
    return ExpertVersion.model_validate(
        {
            "expert": row.expert,
            "surface": surface,
            "version": row.number,
            "pinned_version": _pinned(row),
            "pinned_space": row.pinned_space,
            "training_set": row.training_set,
            "state": checkpoint.state,
            "signature": checkpoint.signature,
            "files": checkpoint.files,
            "metrics": checkpoint.metrics,
            "description": checkpoint.description,
            "digest": checkpoint.digest,
            "created_at": checkpoint.created_at,
            "finalised_at": checkpoint.finalised_at,
        }
    )
