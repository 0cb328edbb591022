"""Versions of foundations: drafts are uploaded, finalised once, then immutable."""

from __future__ import annotations

import builtins
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path

from sqlalchemy import and_, exists, func, select
from sqlalchemy.sql import ColumnElement

from bedplate.errors import Conflict, InvalidRequest, VersionNotReady
from bedplate.references import VersionReference
from bedplate.wire.registry import FileManifest, UploadStatus, Version, VersionCreate
from bedplate_registry import uploads
from bedplate_registry.blobs import BlobStore
from bedplate_registry.checkpoint_files import CheckpointPolicy
from bedplate_registry.checks import fetch, try_insert
from bedplate_registry.database import Database, ReadSession, WriteSession
from bedplate_registry.numbers import create_numbered, number_taken
from bedplate_registry.tables import (
    AliasRow,
    CheckpointRow,
    ExpertVersionRow,
    FoundationRow,
    ServingRow,
    VersionRow,
)


def create(
    database: Database, foundation: str, document: VersionCreate, now: datetime, policy: CheckpointPolicy
) -> Version:
    """A draft with the next number; when others take that number meanwhile, the one after it.

    Raises: as ``create_draft``.
    """
    return create_numbered(
        database, lambda session: _try_create(session, foundation, document, now, policy), foundation
    )


def create_draft(
    session: WriteSession, foundation: str, document: VersionCreate, now: datetime, policy: CheckpointPolicy
) -> Version:
    """A draft within the caller's transaction; ``create`` is the same with retries.

    Raises:
        NotFound: no such foundation, or no such parent.
        VersionNotReady: the parent is a draft.
        CheckpointInvalid, InvalidRequest: the document announces what cannot become a version.
        Conflict: another transaction took the number; try again in a fresh one.
    """
    created = _try_create(session, foundation, document, now, policy)
    if created is None:
        raise number_taken(foundation)
    return created


def amend_draft(
    session: WriteSession, foundation: str, version: int, document: VersionCreate, policy: CheckpointPolicy
) -> Version:
    """Replace what a draft announces; parts of unchanged files are kept.

    Raises:
        VersionImmutable: it is finalised. Otherwise as ``create_draft``.
    """
    row = _row(session, foundation, version)
    _check(session, foundation, document, before=version)
    label = _label(foundation, version)
    uploads.amend(
        session,
        row.checkpoint_id,
        label,
        document.signature,
        document.files,
        document.metrics,
        document.description,
        policy,
    )
    row.parent = document.parent
    row.training_window_start = document.training_window_start
    row.training_window_end = document.training_window_end
    session.flush()
    return get(session, foundation, version)


def receive_part(
    database: Database,
    blobs: BlobStore,
    foundation: str,
    version: int,
    file: str,
    part: int,
    data: Iterable[bytes] | bytes,
) -> UploadStatus:
    """Take one part of a draft's file. Raises: as ``uploads.receive_part``."""
    checkpoint = _checkpoint(database, foundation, version)
    return uploads.receive_part(database, blobs, checkpoint, _label(foundation, version), file, part, data)


def upload_status(session: ReadSession, foundation: str, version: int) -> UploadStatus:
    """Raises: NotFound."""
    return uploads.status(session, _row(session, foundation, version).checkpoint_id)


def finalise(
    database: Database,
    blobs: BlobStore,
    foundation: str,
    version: int,
    now: datetime,
    policy: CheckpointPolicy,
    scratch: Path | None = None,
) -> Version:
    """Verify the upload and make the version immutable. Raises: as ``uploads.finalise``."""
    checkpoint = _checkpoint(database, foundation, version)
    uploads.finalise(database, blobs, checkpoint, _label(foundation, version), now, policy, scratch)
    with database.read() as session:
        return get(session, foundation, version)


def get(session: ReadSession, foundation: str, version: int) -> Version:
    """Raises: NotFound."""
    _row(session, foundation, version)
    return _documents(session, VersionRow.foundation == foundation, VersionRow.number == version)[0]


def list(session: ReadSession, foundation: str) -> builtins.list[Version]:
    """Every version, drafts too, oldest first. Raises: NotFound where there is no such foundation."""
    fetch(session, FoundationRow, foundation, f"foundation {foundation!r}")
    return _documents(session, VersionRow.foundation == foundation)


def resolve(session: ReadSession, reference: VersionReference) -> Version:
    """What ``core@7`` or ``core@production`` means now. Raises: NotFound."""
    number = reference.number
    if number is None:
        key = (reference.foundation, reference.selector)
        number = fetch(session, AliasRow, key, f"alias {reference}").version
    return get(session, reference.foundation, number)


def retire(session: WriteSession, foundation: str, version: int, now: datetime) -> Version:
    """Nobody reads it any more; its number and lineage stay. Retiring twice changes nothing.

    Raises:
        VersionNotReady: it is a draft.
        Conflict: an alias points at it, or a serving expert is pinned to it.
    """
    label = _label(foundation, version)
    checkpoint = lock_checkpoint(session, _row(session, foundation, version).checkpoint_id, label)
    if checkpoint.state == "draft":
        raise VersionNotReady(f"{label} is a draft and was never in use.")
    document = get(session, foundation, version)
    if document.aliases:
        raise Conflict(
            f"{label} is in use: move the alias {', '.join(document.aliases)} to another version first."
        )
    experts = _serving_pinned_to(session, foundation, version)
    if experts:
        raise Conflict(f"{label} is in use: the serving expert {', '.join(experts)} is pinned to it.")
    if checkpoint.state != "retired":
        checkpoint.state, checkpoint.retired_at = "retired", now
        session.flush()
    return get(session, foundation, version)


def file_object(session: ReadSession, foundation: str, version: int, name: str) -> tuple[str, FileManifest]:
    """Object key and manifest of a finalised file. Raises: VersionNotReady, NotFound."""
    row = _row(session, foundation, version)
    return uploads.file_object(session, row.checkpoint_id, _label(foundation, version), name)


def active(session: ReadSession, foundation: str | None = None) -> builtins.list[Version]:
    """The ready versions that are in use: an alias points at them, or a serving expert is pinned to them.

    Sorted by foundation and number. These are the versions whose TAE is computed and logged.
    """
    aliased = exists().where(
        AliasRow.foundation == VersionRow.foundation, AliasRow.version == VersionRow.number
    )
    pinned = exists().where(
        ExpertVersionRow.pinned_foundation == VersionRow.foundation,
        ExpertVersionRow.pinned_number == VersionRow.number,
        ServingRow.expert == ExpertVersionRow.expert,
        ServingRow.version == ExpertVersionRow.number,
    )
    conditions: builtins.list[ColumnElement[bool]] = [CheckpointRow.state == "ready", aliased | pinned]
    if foundation is not None:
        fetch(session, FoundationRow, foundation, f"foundation {foundation!r}")
        conditions.append(VersionRow.foundation == foundation)
    return _documents(session, *conditions)


def of_same_weights(session: ReadSession, version: Version) -> builtins.list[Version]:
    """The finalised versions of its foundation with the same weights, itself among them, oldest first.

    Published again with another ``storage_dtype``, weights stay the same file.
    """
    weights = _weights(version)
    return [
        one
        for one in _documents(
            session, VersionRow.foundation == version.foundation, CheckpointRow.state != "draft"
        )
        if _weights(one) == weights
    ]


def lock_checkpoint(session: WriteSession, checkpoint_id: str, label: str) -> CheckpointRow:
    """Hold the checkpoint's state until the transaction ends, so that nothing is pointed at a version that
    another transaction retires at this moment.
    """
    return fetch(session, CheckpointRow, checkpoint_id, label, lock=True)


def require_ready(session: WriteSession, foundation: str, version: int) -> Version:
    """The version, which stays ready until the transaction ends. Raises: NotFound, VersionNotReady."""
    label = _label(foundation, version)
    state = lock_checkpoint(session, _row(session, foundation, version).checkpoint_id, label).state
    if state != "ready":
        mend = "finalise it first" if state == "draft" else "choose one that is not"
        raise VersionNotReady(
            f"{label} is {'a draft' if state == 'draft' else 'retired'}; {mend}.", state=state
        )
    return get(session, foundation, version)


def _try_create(
    session: WriteSession, foundation: str, document: VersionCreate, now: datetime, policy: CheckpointPolicy
) -> Version | None:
    fetch(session, FoundationRow, foundation, f"foundation {foundation!r}")
    _check(session, foundation, document)
    latest = session.scalar(select(func.max(VersionRow.number)).where(VersionRow.foundation == foundation))
    checkpoint = uploads.new_checkpoint(
        document.signature, document.files, document.metrics, document.description, now, policy
    )
    row = VersionRow(
        foundation=foundation,
        number=(latest or 0) + 1,
        checkpoint_id=checkpoint.id,
        parent=document.parent,
        training_window_start=document.training_window_start,
        training_window_end=document.training_window_end,
    )
    return _document(row, checkpoint, []) if try_insert(session, checkpoint, row) else None


def _check(session: ReadSession, foundation: str, document: VersionCreate, before: int | None = None) -> None:
    start, end = document.training_window_start, document.training_window_end
    if start is not None and end is not None and start > end:
        raise InvalidRequest("The training window ends before it starts; swap its ends.")
    if document.parent is None:
        return
    label = _label(foundation, document.parent)
    if before is not None and document.parent >= before:
        raise InvalidRequest(f"{label} is no older than the draft; a parent has a smaller number.")
    if get(session, foundation, document.parent).state == "draft":
        raise VersionNotReady(f"The parent {label} is a draft; finalise it first.")


def _weights(version: Version) -> set[str]:
    return {file.sha256 for file in version.files if file.name.endswith(".safetensors")}


def _label(foundation: str, version: int) -> str:
    return f"{foundation}@{version}"


def _row(session: ReadSession, foundation: str, version: int) -> VersionRow:
    return fetch(session, VersionRow, (foundation, version), f"version {_label(foundation, version)}")


def _checkpoint(database: Database, foundation: str, version: int) -> str:
    with database.read() as session:
        return _row(session, foundation, version).checkpoint_id


def _serving_pinned_to(session: ReadSession, foundation: str, version: int) -> builtins.list[str]:
    query = (
        select(ServingRow.expert)
        .join(
            ExpertVersionRow,
            and_(ExpertVersionRow.expert == ServingRow.expert, ExpertVersionRow.number == ServingRow.version),
        )
        .where(ExpertVersionRow.pinned_foundation == foundation, ExpertVersionRow.pinned_number == version)
        .order_by(ServingRow.expert)
    )
    return builtins.list(session.scalars(query))


def _documents(session: ReadSession, *conditions: ColumnElement[bool]) -> builtins.list[Version]:
    rows = session.execute(
        select(VersionRow, CheckpointRow)
        .join(CheckpointRow, CheckpointRow.id == VersionRow.checkpoint_id)
        .where(and_(*conditions))
        .order_by(VersionRow.foundation, VersionRow.number)
    ).all()
    names = {row.foundation for row, _ in rows}
    aliases: dict[tuple[str, int], builtins.list[str]] = {}
    query = select(AliasRow).where(AliasRow.foundation.in_(names)).order_by(AliasRow.alias)
    for alias in session.scalars(query):
        aliases.setdefault((alias.foundation, alias.version), []).append(alias.alias)
    return [
        _document(row, checkpoint, aliases.get((row.foundation, row.number), [])) for row, checkpoint in rows
    ]


def _document(row: VersionRow, checkpoint: CheckpointRow, aliases: builtins.list[str]) -> Version:
    return Version.model_validate(
        {
            "foundation": row.foundation,
            "version": row.number,
            "reference": _label(row.foundation, row.number),
            "parent": row.parent,
            "training_window_start": row.training_window_start,
            "training_window_end": row.training_window_end,
            "state": checkpoint.state,
            "signature": checkpoint.signature,
            "files": checkpoint.files,
            "metrics": checkpoint.metrics,
            "description": checkpoint.description,
            "digest": checkpoint.digest,
            "created_at": checkpoint.created_at,
            "finalised_at": checkpoint.finalised_at,
            "aliases": aliases,
        }
    )
