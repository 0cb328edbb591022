"""A version's checkpoint on this machine: fetched from object storage, verified, loaded once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

from bedplate.errors import VersionNotReady
from bedplate_registry import versions
from bedplate_registry.checkpoint_cache import CheckpointCache, CheckpointFile, OnUse, uncounted
from bedplate_registry.database import Database
from bedplate_store.objects import ObjectStore

ModelT = TypeVar("ModelT")


class CheckpointFiles:
    """Fetches the files of finalised versions into ``cache_dir/checkpoints/<digest>``, once per machine."""

    def __init__(
        self, registry: Database, objects: ObjectStore, cache_dir: Path, on_use: OnUse = uncounted
    ) -> None:
        self._registry = registry
        self._cache = CheckpointCache(objects, cache_dir, on_use)

    def fetch(self, foundation: str, number: int) -> Path:
        """The folder that holds the version's files, each with the digest the registry recorded.

        Raises:
            NotFound: there is no such version.
            VersionNotReady: it is a draft still.
            ObjectDamaged: object storage returned other bytes than were finalised.
        """
        with self._registry.read() as session:
            version = versions.get(session, foundation, number)
            if version.digest is None:
                raise VersionNotReady(f"{version.reference} is a draft; finalise it before it is used.")
            files = [
                CheckpointFile(*versions.file_object(session, foundation, number, file.name))
                for file in version.files
            ]
        return self._cache.fetch(version.reference, version.digest, files)


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
