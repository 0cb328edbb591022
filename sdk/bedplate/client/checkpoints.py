"""Checkpoint directories on disk, and their way to and from the registry in parts."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from bedplate.client.answers import read_document
from bedplate.client.requests import get, path
from bedplate.client.steps import Request, Steps, blocking, exchange, saved
from bedplate.codecs import RAW
from bedplate.errors import CheckpointInvalid, DigestMismatch
from bedplate.wire.registry import FileManifest, Signature, UploadStatus

ModelT = TypeVar("ModelT", bound=BaseModel)

PART_BYTES = 16 << 20
FINALISE_TIMEOUT_SECONDS = 900.0  # the registry reads the whole checkpoint once more
SIGNATURE_FILE = "signature.json"
UploadProgress = Callable[[str, int, int], None]
"""Called with (file name, bytes done of all files, bytes of all files)."""

_FILE_NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")
_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class CheckpointDirectory:
    """What is about to be published."""

    directory: Path
    signature: Signature
    files: list[FileManifest]

    @property
    def bytes(self) -> int:
        return sum(file.bytes for file in self.files)


def read_checkpoint(directory: Path) -> CheckpointDirectory:
    """Read ``signature.json`` and compute the manifest of every file; hidden files are left out.

    Raises:
        CheckpointInvalid: no such directory, no readable signature, a subdirectory, or a name not allowed.
    """
    if not directory.is_dir():
        raise CheckpointInvalid(f"{directory} is not a directory; give the directory of a saved checkpoint.")
    paths = sorted(entry for entry in directory.iterdir() if not entry.name.startswith("."))
    for entry in paths:
        if not entry.is_file() or not _FILE_NAME.match(entry.name):
            raise CheckpointInvalid(
                f"{entry} cannot be part of a checkpoint: only plain files named with letters, digits, '.', "
                "'_' and '-' can. Move it elsewhere."
            )
    signature = _read_signature(directory / SIGNATURE_FILE)
    return CheckpointDirectory(directory, signature, [_manifest(entry) for entry in paths])


def _read_signature(file: Path) -> Signature:
    try:
        return Signature.model_validate_json(file.read_bytes())
    except FileNotFoundError:
        raise CheckpointInvalid(
            f"{file} is missing; bedplate_modeling's save_checkpoint writes it."
        ) from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise CheckpointInvalid(f"{file}: {where}: {first['msg']}.") from error


def _manifest(file: Path) -> FileManifest:
    size = file.stat().st_size
    parts = max(1, -(-size // PART_BYTES))
    return FileManifest(name=file.name, sha256=file_digest(file), bytes=size, parts=parts)


def file_digest(file: Path) -> str:
    """SHA-256 of a file, read in chunks, as 64 hexadecimal digits."""
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while chunk := stream.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def _read_part(file: Path, part: int) -> bytes:
    with file.open("rb") as stream:
        stream.seek(part * PART_BYTES)
        return stream.read(PART_BYTES)


def upload(base: str, checkpoint: CheckpointDirectory, progress: UploadProgress | None) -> Steps[None]:
    """Send every part the draft at ``base`` does not have yet."""
    status = yield from get(f"{base}/upload", UploadStatus)
    done = 0
    for file in checkpoint.files:
        received = set(status.received.get(file.name, ()))
        for part in range(file.parts):
            size = min(PART_BYTES, file.bytes - part * PART_BYTES)
            if part not in received:
                source = checkpoint.directory / file.name
                content = yield from blocking(partial(_read_part, source, part))
                url = f"{base}/files/{file.name}/parts/{part}"
                headers = {"content-type": RAW}
                yield from exchange(Request("PUT", url, headers=headers, content=content, idempotent=True))
            done += size
            if progress:
                progress(file.name, done, checkpoint.bytes)


def finalise(base: str, model: type[ModelT]) -> Steps[ModelT]:
    """Ask the registry to verify the draft and make it immutable.

    Raises:
        DigestMismatch, SignatureMismatch: the draft stays and can be uploaded again.
    """
    request = Request("POST", f"{base}/finalise", timeout_seconds=FINALISE_TIMEOUT_SECONDS)
    response = yield from exchange(request)
    return read_document(model, response)


def download(
    base: str, files: list[FileManifest], directory: Path, progress: UploadProgress | None
) -> Steps[None]:
    """Fetch every file, verify it, then rename it into place; files that are there already are kept."""
    total = sum(file.bytes for file in files)
    done = 0
    yield from blocking(lambda: directory.mkdir(parents=True, exist_ok=True))
    for file in files:
        request = Request("GET", f"{base}/files/{file.name}", idempotent=True, headers={"accept": RAW})
        advance = _Advance(progress, file, done, total)
        yield from fetch_verified(request, directory / file.name, file.sha256, advance)
        done += file.bytes
        if progress:
            progress(file.name, done, total)


class _Advance:
    """Turns counts of bytes within one file into progress over all files."""

    def __init__(self, progress: UploadProgress | None, file: FileManifest, before: int, total: int) -> None:
        self._progress, self._file, self._before, self._total = progress, file, before, total
        self._fetched = 0

    def __call__(self, count: int) -> None:
        # A retry begins again and may count bytes twice; the file is never more than whole.
        self._fetched = min(self._fetched + count, self._file.bytes)
        if self._progress:
            self._progress(self._file.name, self._before + self._fetched, self._total)


def fetch_verified(
    request: Request, target: Path, sha256: str, advance: Callable[[int], None]
) -> Steps[None]:
    """Stream an answer into ``target``, which appears only when its digest is right.

    Raises:
        DigestMismatch: the bytes that came are not those announced.
    """
    if (yield from blocking(lambda: target.is_file() and file_digest(target) == sha256)):
        return
    # Named by the request, so that two who fetch into one directory do not write into one file.
    unverified = target.with_name(f".{target.name}.{request.request_id}.partial")
    try:
        yield from saved(request, unverified, advance)
        found = yield from blocking(lambda: file_digest(unverified))
        if found != sha256:
            raise DigestMismatch(
                f"{target.name} came with SHA-256 {found}, announced was {sha256}; fetch it again, and if "
                "that does not help, the stored object is damaged.",
                file=target.name,
            )
        yield from blocking(lambda: unverified.replace(target))
    finally:
        unverified.unlink(missing_ok=True)


def version_path(kind: str, name: str, selector: str | int) -> str:
    """``/v1/foundations/core/versions/7`` and ``/v1/experts/ranker/versions/3``."""
    return path(kind, name, "versions", selector)
