"""A version's checkpoint on this machine: fetched from object storage, verified, loaded once."""

from __future__ import annotations

import hashlib
import os
import shutil
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

from bedplate.errors import DigestMismatch, VersionNotReady
from bedplate.wire.registry import FileManifest, Version
from bedplate_registry import versions
from bedplate_registry.database import Database
from bedplate_store.objects import ObjectStore

ModelT = TypeVar("ModelT")
_CHUNK_BYTES = 1 << 20


class CheckpointFiles:
    """Fetches the files of finalised versions into ``cache_dir/checkpoints/<digest>``, once per machine."""

    def __init__(self, registry: Database, objects: ObjectStore, cache_dir: Path) -> None:
        self._registry = registry
        self._objects = objects
        self._root = cache_dir / "checkpoints"

    def fetch(self, foundation: str, number: int) -> Path:
        """The folder that holds the version's files, each with the digest the registry recorded.

        Raises:
            NotFound: there is no such version.
            VersionNotReady: it is a draft still.
            DigestMismatch: object storage returned other bytes than were finalised.
        """
        with self._registry.read() as session:
            version = versions.get(session, foundation, number)
            if version.digest is None:
                raise VersionNotReady(f"{version.reference} is a draft; finalise it before it is used.")
            files = [versions.file_object(session, foundation, number, file.name) for file in version.files]
        folder = self._root / version.digest
        if not folder.exists():
            self._fill(folder, version, files)
        return folder

    def _fill(self, folder: Path, version: Version, files: list[tuple[str, FileManifest]]) -> None:
        """The folder appears whole, by a rename, so that several processes may fetch at once."""
        aside = self._root / f".{folder.name}.{os.getpid()}.{uuid.uuid4().hex}"
        aside.mkdir(parents=True)
        try:
            for key, manifest in files:
                path = aside / manifest.name
                self._objects.get_file(key, path)
                _verify(path, manifest, version)
            try:
                aside.rename(folder)
            except OSError:
                if not folder.exists():
                    raise
        finally:
            shutil.rmtree(aside, ignore_errors=True)


def _verify(path: Path, manifest: FileManifest, version: Version) -> None:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    if digest.hexdigest() != manifest.sha256:
        raise DigestMismatch(
            f"{manifest.name} of {version.reference} in object storage has SHA-256 {digest.hexdigest()}, "
            f"the registry recorded {manifest.sha256}; restore the object or upload a new version."
        )


class Checkpoints(Generic[ModelT]):
    """Models by version, loaded once per process; versions are immutable, so they never go stale.

    Args:
        load: reads a model from a checkpoint's folder.
        capacity: how many models stay in memory; the one not used for longest goes first.
    """

    def __init__(self, files: CheckpointFiles, load: Callable[[Path], ModelT], capacity: int = 2) -> None:
        self._files = files
        self._load = load
        self._capacity = capacity
        self._models: dict[Path, ModelT] = {}

    def model(self, foundation: str, number: int) -> ModelT:
        """The version's model. Raises like :meth:`CheckpointFiles.fetch`."""
        folder = self._files.fetch(foundation, number)
        model = self._models.pop(folder, None)
        if model is None:
            while len(self._models) >= self._capacity:
                del self._models[next(iter(self._models))]
            model = self._load(folder)
        self._models[folder] = model
        return model
