"""Checkpoint directories on disk, and their way to and from the registry in parts."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from bedplate.client.answers import read_document
from bedplate.client.downloads import Progress, Wanted, fetch, file_digest
from bedplate.client.effects import Request, Steps
from bedplate.client.requests import get, path
from bedplate.client.steps import blocking, exchange
from bedplate.codecs import RAW
from bedplate.errors import CheckpointInvalid
from bedplate.wire.registry import FileManifest, Signature, UploadStatus

ModelT = TypeVar("ModelT", bound=BaseModel)

PART_BYTES = 16 << 20
FINALISE_TIMEOUT_SECONDS = 900.0  # the registry reads the whole checkpoint once more
SIGNATURE_FILE = "signature.json"
_FILE_NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")


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


def _read_part(file: Path, part: int) -> bytes:
    with file.open("rb") as stream:
        stream.seek(part * PART_BYTES)
        return stream.read(PART_BYTES)


def upload(base: str, checkpoint: CheckpointDirectory, progress: Progress | None) -> Steps[None]:
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


def download(base: str, files: list[FileManifest], directory: Path, progress: Progress | None) -> Steps[None]:
    """Fetch every file and verify it; files that are there already are kept."""
    wanted = [
        Wanted(
            Request("GET", f"{base}/files/{file.name}", idempotent=True, headers={"accept": RAW}),
            directory / file.name,
            file.bytes,
            file.sha256,
        )
        for file in files
    ]
    yield from fetch(wanted, progress)


def version_path(kind: str, name: str, selector: str | int) -> str:
    """``/v1/foundations/core/versions/7`` and ``/v1/experts/ranker/versions/3``."""
    return path(kind, name, "versions", selector)
