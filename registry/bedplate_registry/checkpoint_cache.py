"""Checkpoints on this machine: fetched from object storage and verified, once."""

from __future__ import annotations

import hashlib
import os
import shutil
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from bedplate.errors import DigestMismatch
from bedplate.wire.registry import FileManifest

_CHUNK_BYTES = 1 << 20


class BlobReader(Protocol):
    """All that reading a checkpoint takes; every object store of the platform fits."""

    def get_file(self, key: str, path: Path) -> None:
        """Write the whole object to ``path``. Raises NotFound."""
        ...


@dataclass(frozen=True, slots=True)
class CheckpointFile:
    """Where a file of a checkpoint lies in object storage, and what it must be."""

    object_key: str
    manifest: FileManifest


class CheckpointCache:
    """Folders ``checkpoints/<digest>`` in the cache directory; immutable, shared by every process on it."""

    def __init__(self, blobs: BlobReader, cache_dir: Path) -> None:
        self._blobs = blobs
        self._root = cache_dir / "checkpoints"

    def fetch(self, label: str, digest: str, files: Sequence[CheckpointFile]) -> Path:
        """The folder that holds exactly ``files``.

        Args:
            label: what the checkpoint is called in an error, e.g. ``core@7``.
            digest: the checkpoint's, as the registry recorded it.

        Raises:
            NotFound: an object is gone.
            DigestMismatch: object storage returned other bytes than were finalised.
        """
        folder = self._root / digest
        if not folder.exists():
            self._fill(folder, label, files)
        return folder

    def _fill(self, folder: Path, label: str, files: Sequence[CheckpointFile]) -> None:
        """The folder appears whole, by a rename, so that several processes may fetch at once."""
        aside = self._root / f".{folder.name}.{os.getpid()}.{uuid.uuid4().hex}"
        aside.mkdir(parents=True)
        try:
            for file in files:
                path = aside / file.manifest.name
                self._blobs.get_file(file.object_key, path)
                _verify(path, file.manifest, label)
            try:
                aside.rename(folder)
            except OSError:
                if not folder.exists():
                    raise
        finally:
            shutil.rmtree(aside, ignore_errors=True)


def _verify(path: Path, manifest: FileManifest, label: str) -> None:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    if digest.hexdigest() != manifest.sha256:
        raise DigestMismatch(
            f"{manifest.name} of {label} came from object storage with SHA-256 {digest.hexdigest()}, the "
            f"registry recorded {manifest.sha256}; restore the object or publish the version anew."
        )
