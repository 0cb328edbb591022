"""Objects as files under one directory of this machine."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import stat
import time
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

from bedplate.full_disks import named_full_disk
from bedplate_store.objects.port import check_key, damaged, missing

_TEMPORARY = ".tmp"
_TEMPORARY_SECONDS_MAX = 24 * 3600
_PUBLISH_ATTEMPTS = 10
_CHUNK_BYTES = 1 << 20


class LocalObjectStore:
    """An :class:`~bedplate_store.objects.ObjectStore` in a directory.

    An object is written to a temporary file, synced, moved to its name, and the directories are synced: a
    killed process or a power cut leaves the old object, the new one, or none, never a part of one.
    """

    def __init__(self, root: Path) -> None:
        self.root = Path(root)
        self._temporary = self.root / _TEMPORARY
        self._temporary.mkdir(parents=True, exist_ok=True)
        self._sweep_temporary()

    def put(self, key: str, data: bytes | memoryview) -> None:
        self._store(key, lambda file: _write_all(file, data))

    def put_file(self, key: str, path: Path) -> None:
        with open(path, "rb") as source:
            self._store(key, lambda file: shutil.copyfileobj(source, file, _CHUNK_BYTES))

    def get(self, key: str, *, sha256: str | None = None) -> bytes:
        with self._open(key) as file:
            data = file.read()
        if sha256 is not None and (found := hashlib.sha256(data).hexdigest()) != sha256:
            raise damaged(key, sha256, found)
        return data

    def get_range(self, key: str, start: int, length: int) -> bytes:
        with self._open(key) as file:
            file.seek(start)
            return file.read(length)

    def get_file(self, key: str, path: Path, *, sha256: str | None = None) -> None:
        partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
        digest = hashlib.sha256()
        with named_full_disk(path.parent):
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                with self._open(key) as source, open(partial, "wb") as target:
                    while chunk := source.read(_CHUNK_BYTES):
                        digest.update(chunk)
                        target.write(chunk)
                    target.flush()
                    os.fsync(target.fileno())
                if sha256 not in (None, digest.hexdigest()):
                    raise damaged(key, str(sha256), digest.hexdigest())
                os.replace(partial, path)
            finally:
                partial.unlink(missing_ok=True)

    def local_path(self, key: str) -> Path | None:
        path = self._path(key)
        return path if path.is_file() else None

    def size(self, key: str) -> int | None:
        found = self._stat(key)
        return None if found is None else found.st_size

    def modified_at(self, key: str) -> datetime | None:
        found = self._stat(key)
        return None if found is None else datetime.fromtimestamp(found.st_mtime, UTC)

    def list(self, prefix: str) -> Iterator[str]:
        folder, _, _ = prefix.rpartition("/")
        if folder:
            check_key(folder)
        for base, folders, names in os.walk(self.root / folder):
            folders[:] = [name for name in folders if not name.startswith(".")]
            relative = Path(base).relative_to(self.root).as_posix()
            for name in names:
                key = name if relative == "." else f"{relative}/{name}"
                if key.startswith(prefix) and not name.startswith("."):
                    yield key

    def delete(self, key: str) -> None:
        path = self._path(key)
        path.unlink(missing_ok=True)
        folder = path.parent
        # A folder somebody just put another object into does not go, and then neither do those above it.
        with contextlib.suppress(OSError):
            while folder != self.root:
                folder.rmdir()
                folder = folder.parent

    def signed_url(self, key: str, expires_seconds: int) -> str | None:
        check_key(key)
        return None

    def _store(self, key: str, write: Callable[[BinaryIO], None]) -> None:
        path = self._path(key)
        partial = self._temporary / uuid.uuid4().hex
        with named_full_disk(self.root):
            try:
                with open(partial, "xb") as file:
                    write(file)
                    file.flush()
                    os.fsync(file.fileno())
                self._publish(partial, path)
            finally:
                partial.unlink(missing_ok=True)

    def _publish(self, partial: Path, path: Path) -> None:
        for attempt in range(_PUBLISH_ATTEMPTS):
            self._make_folder(path.parent)
            try:
                os.replace(partial, path)
            except FileNotFoundError:
                # delete() took the folder away as empty between the two calls.
                if attempt == _PUBLISH_ATTEMPTS - 1:
                    raise
                continue
            _sync_folder(path.parent)
            return
        raise AssertionError("unreachable: the last attempt returns or raises")

    def _make_folder(self, folder: Path) -> None:
        new = []
        while not folder.is_dir():
            new.append(folder)
            folder = folder.parent
        for each in reversed(new):
            each.mkdir(parents=True, exist_ok=True)
            _sync_folder(each.parent)

    def _sweep_temporary(self) -> None:
        """Remove what killed writers left; a living writer's file is younger than a day."""
        oldest = time.time() - _TEMPORARY_SECONDS_MAX
        for path in self._temporary.iterdir():
            with contextlib.suppress(FileNotFoundError):
                if path.stat().st_mtime < oldest:
                    path.unlink()

    def _path(self, key: str) -> Path:
        return self.root / check_key(key)

    def _stat(self, key: str) -> os.stat_result | None:
        try:
            found = self._path(key).stat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        return found if stat.S_ISREG(found.st_mode) else None

    def _open(self, key: str) -> BinaryIO:
        try:
            return open(self._path(key), "rb")
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            raise missing(key) from None


def _write_all(file: BinaryIO, data: bytes | memoryview) -> None:
    file.write(data)


def _sync_folder(folder: Path) -> None:
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except FileNotFoundError:
        return  # taken away as empty meanwhile; the caller's next step finds out and makes it again
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
