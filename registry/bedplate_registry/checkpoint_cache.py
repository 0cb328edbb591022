"""Checkpoints on this machine: fetched from object storage and verified, once."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Literal, Protocol

from bedplate.errors import ObjectDamaged
from bedplate.full_disks import named_full_disk
from bedplate.wire.registry import FileManifest

CHECKPOINTS_UNUSED = timedelta(days=1)
"""How long a checkpoint stays that nobody uses."""
_FOLDER = "checkpoints"


OnUse = Callable[[str, Literal["hit", "miss"]], None]
"""Called with what is cached, and whether it was on this machine already."""


def uncounted(_cache: str, _result: str) -> None:
    """For whom nobody counts."""


class BlobReader(Protocol):
    """All that reading a checkpoint takes; every object store of the platform fits."""

    def get_file(self, key: str, path: Path, *, sha256: str | None = None) -> None:
        """Write the whole object to ``path``. Raises NotFound, and ObjectDamaged if it is not ``sha256``."""
        ...


@dataclass(frozen=True, slots=True)
class CheckpointFile:
    """Where a file of a checkpoint lies in object storage, and what it must be."""

    object_key: str
    manifest: FileManifest


class CheckpointCache:
    """Folders ``checkpoints/<digest>`` in the cache directory; immutable, shared by every process on it.

    Args:
        on_use: told at each fetch whether the checkpoint was here.
    """

    def __init__(self, blobs: BlobReader, cache_dir: Path, on_use: OnUse = uncounted) -> None:
        self._blobs = blobs
        self._root = cache_dir / _FOLDER
        self._on_use = on_use

    def fetch(self, label: str, digest: str, files: Sequence[CheckpointFile]) -> Path:
        """The folder that holds exactly ``files``.

        Args:
            label: what the checkpoint is called in an error, e.g. ``core@7``.
            digest: the checkpoint's, as the registry recorded it.

        Raises:
            NotFound: an object is gone.
            ObjectDamaged: object storage holds other bytes than were finalised.
            StorageFull: there is no room for them here.
        """
        folder = self._root / digest
        try:
            os.utime(folder)  # used now, says this to whoever prunes the cache
        except FileNotFoundError:
            self._fill(folder, label, files)
            self._on_use("checkpoints", "miss")
        else:
            self._on_use("checkpoints", "hit")
        return folder

    def _fill(self, folder: Path, label: str, files: Sequence[CheckpointFile]) -> None:
        """The folder appears whole, by a rename, so that several processes may fetch at once."""
        aside = self._root / f".{folder.name}.{os.getpid()}.{uuid.uuid4().hex}"
        with named_full_disk(self._root):
            aside.mkdir(parents=True)
        try:
            for file in files:
                try:
                    path = aside / file.manifest.name
                    self._blobs.get_file(file.object_key, path, sha256=file.manifest.sha256)
                except ObjectDamaged as error:
                    raise ObjectDamaged(
                        f"{file.manifest.name} of {label} is damaged: {error.detail} Or publish the version "
                        "anew.",
                        **error.context,
                    ) from error
            try:
                aside.rename(folder)
            except OSError:
                if not folder.exists():
                    raise
        finally:
            shutil.rmtree(aside, ignore_errors=True)


def prune_checkpoints(cache_dir: Path, before: datetime, in_use: Collection[str] = ()) -> int:
    """Remove the folders last used before ``before``, and what killed fetches left; returns how many went.

    Args:
        in_use: digests of checkpoints that count as used now, for other processes' prunings, too. Who has
            files of a removed one mapped keeps them; who needs it again fetches it again.
    """
    root = cache_dir / _FOLDER
    for digest in in_use:
        with suppress(FileNotFoundError):
            os.utime(root / digest)
    removed = 0
    for folder in sorted(root.glob("*")):
        # Processes share the cache: another one may prune at the same time.
        with suppress(FileNotFoundError):
            if folder.stat().st_mtime < before.timestamp():
                _remove(folder)
                removed += 1
    return removed


def _remove(folder: Path) -> None:
    """The folder goes whole, by a rename: nobody fetches half of it."""
    aside = folder.with_name(f".{folder.name.lstrip('.')}.{uuid.uuid4().hex}")
    folder.rename(aside)
    shutil.rmtree(aside, ignore_errors=True)
