"""Drafts of checkpoints: parts arrive in any order, finalise joins and verifies them, then nothing changes.

The database says which object holds which part. Objects are written before the row that names them and
deleted after the row that named them has moved on, so a killed process leaves an unused object at the worst.
"""

from __future__ import annotations

import hashlib
import tempfile
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import select

from bedplate.errors import (
    BatchTooLarge,
    BedplateError,
    CheckpointInvalid,
    Conflict,
    DigestMismatch,
    InvalidRequest,
    NotFound,
    VersionImmutable,
    VersionNotReady,
)
from bedplate.wire.registry import FileManifest, Signature, UploadStatus
from bedplate_registry.blobs import BlobStore
from bedplate_registry.checkpoint_files import (
    CheckpointPolicy,
    check_announced,
    check_contents,
    manifest_digest,
)
from bedplate_registry.checks import check_metrics, check_text, fetch
from bedplate_registry.database import Database, ReadSession, WriteSession
from bedplate_registry.tables import CheckpointRow, UploadPartRow

PART_BYTES_MAX = 64 * 2**20
_CHUNK_BYTES = 8 * 2**20
_SHOWN = 5


@dataclass(frozen=True)
class Draft:
    """What a draft was when finalise looked at it; it must be the same when finalise commits."""

    signature: Signature
    files: tuple[FileManifest, ...]
    parts: Mapping[tuple[str, int], str]
    """(file, part) -> object key"""


def new_checkpoint(
    signature: Signature,
    files: list[FileManifest],
    metrics: dict[str, float],
    description: str,
    now: datetime,
    policy: CheckpointPolicy,
) -> CheckpointRow:
    """A draft, not yet in any session.

    Raises:
        CheckpointInvalid: such files, or such an architecture, cannot be a checkpoint here.
        InvalidRequest: a metric is not finite, or a text holds NUL.
    """
    values = _columns(signature, files, metrics, description, policy)
    return CheckpointRow(id=uuid.uuid4().hex, state="draft", created_at=now, **values)


def amend(
    session: WriteSession,
    checkpoint_id: str,
    label: str,
    signature: Signature,
    files: list[FileManifest],
    metrics: dict[str, float],
    description: str,
    policy: CheckpointPolicy,
) -> None:
    """Replace what the draft announces; parts of files whose manifest stays the same are kept.

    Raises:
        VersionImmutable: it is finalised. Otherwise as ``new_checkpoint``.
    """
    values = _columns(signature, files, metrics, description, policy)
    row = _draft_row(session, checkpoint_id, label, lock=True)
    before = {file.name: file for file in _files(row)}
    kept = {file.name for file in files if before.get(file.name) == file}
    for part in _part_rows(session, checkpoint_id):
        if part.file not in kept:
            session.delete(part)
    for name, value in values.items():
        setattr(row, name, value)
    session.flush()


def receive_part(
    database: Database,
    blobs: BlobStore,
    checkpoint_id: str,
    label: str,
    file: str,
    part: int,
    data: Iterable[bytes] | bytes,
) -> UploadStatus:
    """Take one part of one file of a draft; sending a part again replaces it.

    Raises:
        VersionImmutable: it is finalised.
        NotFound: the draft has no such file; InvalidRequest: the file has no such part.
        BatchTooLarge: over 64 MiB; DigestMismatch: longer than the whole file was announced to be.
    """
    with database.read() as session:
        manifest = _draft_file(_draft_row(session, checkpoint_id, label), label, file, part)
    # A key of its own for every attempt: two uploads of one part at once cannot mix, the row decides.
    key = f"{_prefix(checkpoint_id)}{file}/{part:05d}-{uuid.uuid4().hex}"
    size = _store_part(blobs, key, data, manifest)

    def record(session: WriteSession) -> tuple[str | None, UploadStatus]:
        row = _draft_row(session, checkpoint_id, label, lock=True)
        if _draft_file(row, label, file, part) != manifest:
            raise Conflict(f"{file} of {label} was amended meanwhile; send the part again.")
        replaced = _record_part(
            session,
            UploadPartRow(checkpoint_id=checkpoint_id, file=file, part=part, object_key=key, bytes=size),
        )
        return replaced, status(session, checkpoint_id)

    try:
        replaced, answer = database.transact(record)
    except BedplateError:
        blobs.delete(key)
        raise
    if replaced is not None:
        blobs.delete(replaced)
    return answer


def status(session: ReadSession, checkpoint_id: str) -> UploadStatus:
    """Which parts have arrived; all of them once it is finalised."""
    row = fetch(session, CheckpointRow, checkpoint_id, f"checkpoint {checkpoint_id}")
    files = _files(row)
    if row.state != "draft":
        return UploadStatus(received={file.name: list(range(file.parts)) for file in files})
    received: dict[str, list[int]] = {file.name: [] for file in files}
    for part in _part_rows(session, checkpoint_id):
        received[part.file].append(part.part)
    return UploadStatus(received=received)


def finalise(
    database: Database,
    blobs: BlobStore,
    checkpoint_id: str,
    label: str,
    now: datetime,
    policy: CheckpointPolicy,
    scratch: Path | None = None,
) -> None:
    """Join the parts, verify digests, types and signature, and make the checkpoint immutable.

    The files are joined in ``scratch`` (None: the system's temporary folder), which needs room for all of
    them. The slow part runs outside of any transaction; whatever it raises, the draft stays as it was.

    Raises:
        VersionImmutable: it is finalised already.
        CheckpointInvalid: parts are missing, a file is not what its name says, or the policy refuses it
            (the draft may be older than the policy).
        DigestMismatch, SignatureMismatch: upload or amend what the detail names, then finalise again.
        Conflict: the draft changed while it was verified.
    """
    with database.read() as session:
        draft = _read_draft(session, checkpoint_id, label)
    try:
        _verify_and_store(draft, blobs, label, policy, scratch)
    except BedplateError:
        # What was wrong may be that somebody else finalised or changed it meanwhile: then that is the answer.
        with database.read() as session:
            _require_unchanged(session, checkpoint_id, label, draft)
        raise

    def make_immutable(session: WriteSession) -> None:
        _require_unchanged(session, checkpoint_id, label, draft, lock=True)
        row = _draft_row(session, checkpoint_id, label)
        row.state, row.digest, row.finalised_at = "ready", manifest_digest(draft.files), now
        for part in _part_rows(session, checkpoint_id):
            session.delete(part)

    database.transact(make_immutable)
    _delete_parts(blobs, checkpoint_id)


def file_object(session: ReadSession, checkpoint_id: str, label: str, name: str) -> tuple[str, FileManifest]:
    """The object key and manifest of a finalised file.

    Raises:
        VersionNotReady: it is a draft. NotFound: there is no such file.
    """
    row = fetch(session, CheckpointRow, checkpoint_id, label)
    if row.state == "draft":
        raise VersionNotReady(f"{label} is a draft; finalise it before reading its files.")
    for file in _files(row):
        if file.name == name:
            return object_key(file), file
    names = ", ".join(file.name for file in _files(row))
    raise NotFound(f"{label} has no file {name!r}; it has {names}.")


def object_key(file: FileManifest) -> str:
    """Where a finalised file lies: content-addressed, so equal files of several versions are stored once."""
    return f"checkpoints/{file.sha256}"


def sweep(database: Database, blobs: BlobStore) -> int:
    """Delete part objects of checkpoints that are no drafts any more (left by a process that was killed while
    it finalised); returns how many.
    """
    owners: dict[str, list[str]] = {}
    for key in blobs.list("uploads/"):
        owners.setdefault(key.split("/")[1], []).append(key)
    with database.read() as session:
        drafts = set(session.scalars(select(CheckpointRow.id).where(CheckpointRow.state == "draft")))
    dead = [key for owner, keys in owners.items() if owner not in drafts for key in keys]
    for key in dead:
        blobs.delete(key)
    return len(dead)


def _columns(
    signature: Signature,
    files: list[FileManifest],
    metrics: dict[str, float],
    description: str,
    policy: CheckpointPolicy,
) -> dict[str, Any]:
    check_announced(files, signature, policy)
    check_metrics(metrics)
    check_text(description=description)
    return {
        "signature": signature.model_dump(mode="json"),
        "files": [file.model_dump(mode="json") for file in files],
        "metrics": dict(metrics),
        "description": description,
    }


def _prefix(checkpoint_id: str) -> str:
    return f"uploads/{checkpoint_id}/"


def _files(row: CheckpointRow) -> tuple[FileManifest, ...]:
    return tuple(FileManifest.model_validate(file) for file in row.files)


def _part_rows(session: ReadSession, checkpoint_id: str) -> list[UploadPartRow]:
    query = select(UploadPartRow).where(UploadPartRow.checkpoint_id == checkpoint_id)
    return list(session.scalars(query.order_by(UploadPartRow.file, UploadPartRow.part)))


def _draft_row(session: ReadSession, checkpoint_id: str, label: str, *, lock: bool = False) -> CheckpointRow:
    row = fetch(session, CheckpointRow, checkpoint_id, label, lock=lock)
    if row.state != "draft":
        raise VersionImmutable(f"{label} is finalised and cannot change; create a new version.")
    return row


def _draft_file(row: CheckpointRow, label: str, file: str, part: int) -> FileManifest:
    for manifest in _files(row):
        if manifest.name == file:
            if not 0 <= part < manifest.parts:
                raise InvalidRequest(
                    f"{file} of {label} has parts 0 to {manifest.parts - 1}; there is no part {part}."
                )
            return manifest
    names = ", ".join(manifest.name for manifest in _files(row))
    raise NotFound(f"{label} announced no file {file!r}; it announced {names}.")


def _store_part(blobs: BlobStore, key: str, data: Iterable[bytes] | bytes, manifest: FileManifest) -> int:
    """Write one part to ``key``; returns its bytes. Nothing is stored when ``data`` ends in an exception."""
    chunks = (data,) if isinstance(data, bytes) else data
    size = 0
    with tempfile.NamedTemporaryFile(prefix="bedplate-part-") as spool:
        for chunk in chunks:
            size += len(chunk)
            if size > PART_BYTES_MAX:
                raise BatchTooLarge(
                    f"A part may have {PART_BYTES_MAX} bytes; cut {manifest.name} into more parts."
                )
            if size > manifest.bytes:
                raise DigestMismatch(
                    f"This part is longer than {manifest.name} was announced to be ({manifest.bytes} bytes); "
                    "send the right file, or amend the draft."
                )
            spool.write(chunk)
        spool.flush()
        blobs.put_file(key, Path(spool.name))
    return size


def _record_part(session: WriteSession, row: UploadPartRow) -> str | None:
    """Point the part at its new object; returns the key of the one it replaces."""
    known = session.get(UploadPartRow, (row.checkpoint_id, row.file, row.part))
    replaced = known.object_key if known is not None else None
    session.merge(row)
    session.flush()
    return replaced


def _read_draft(session: ReadSession, checkpoint_id: str, label: str, *, lock: bool = False) -> Draft:
    row = _draft_row(session, checkpoint_id, label, lock=lock)
    parts = {(part.file, part.part): part.object_key for part in _part_rows(session, checkpoint_id)}
    return Draft(Signature.model_validate(row.signature), _files(row), parts)


def _require_unchanged(
    session: ReadSession, checkpoint_id: str, label: str, draft: Draft, *, lock: bool = False
) -> None:
    if _read_draft(session, checkpoint_id, label, lock=lock) != draft:
        raise Conflict(f"{label} changed while it was verified; finalise it again.")


def _verify_and_store(
    draft: Draft, blobs: BlobStore, label: str, policy: CheckpointPolicy, scratch: Path | None
) -> None:
    check_announced(draft.files, draft.signature, policy)
    _check_complete(draft, blobs, label)
    with tempfile.TemporaryDirectory(prefix="bedplate-finalise-", dir=scratch) as folder:
        paths = {file.name: _join(blobs, draft, file, Path(folder) / file.name) for file in draft.files}
        check_contents(paths, draft.signature, policy)
        for file in draft.files:
            if blobs.size(object_key(file)) != file.bytes:
                blobs.put_file(object_key(file), paths[file.name])


def _check_complete(draft: Draft, blobs: BlobStore, label: str) -> None:
    missing = [
        f"{file.name} part {part}"
        for file in draft.files
        for part in range(file.parts)
        if (file.name, part) not in draft.parts or blobs.size(draft.parts[file.name, part]) is None
    ]
    if missing:
        more = f" and {len(missing) - _SHOWN} more" if len(missing) > _SHOWN else ""
        raise CheckpointInvalid(
            f"{label} is incomplete: upload {', '.join(missing[:_SHOWN])}{more}, then finalise.",
            missing=missing[:100],
        )


def _join(blobs: BlobStore, draft: Draft, file: FileManifest, path: Path) -> Path:
    digest, size = hashlib.sha256(), 0
    with path.open("wb") as joined:
        for part in range(file.parts):
            for chunk in _chunks(blobs, draft.parts[file.name, part]):
                digest.update(chunk)
                size += len(chunk)
                joined.write(chunk)
    if size != file.bytes or digest.hexdigest() != file.sha256:
        raise DigestMismatch(
            f"{file.name}: announced were {file.bytes} bytes with SHA-256 {file.sha256}, the parts joined "
            f"are {size} bytes with {digest.hexdigest()}. Upload its parts again (or amend the draft), then "
            "finalise.",
            file=file.name,
        )
    return path


def _chunks(blobs: BlobStore, key: str) -> Iterable[bytes]:
    size = blobs.size(key) or 0
    for start in range(0, size, _CHUNK_BYTES):
        yield blobs.get_range(key, start, min(_CHUNK_BYTES, size - start))


def _delete_parts(blobs: BlobStore, checkpoint_id: str) -> None:
    for key in list(blobs.list(_prefix(checkpoint_id))):
        blobs.delete(key)
