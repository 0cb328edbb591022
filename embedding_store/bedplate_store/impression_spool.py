"""Spool files: where a served request is written before its answer leaves.

Each writer appends to a file of its own, ``<id>.open``. A sealer, in whatever process, takes a file over by
renaming it to ``<id>.closed`` while it holds the file's lock; the writer, who takes the same lock for each
append, sees that its file is gone and begins another. So a file is never sealed while a record is being
written, and it does not matter whether its writer still lives.
"""

from __future__ import annotations

import fcntl
import os
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from bedplate.errors import StorageFull, Unavailable
from bedplate.full_disks import is_full_disk, named_full_disk

_OPEN, _CLOSED = ".open", ".closed"
_LARGEST_FILE_BYTES = 256 * 2**20


class SpoolWriter:
    """Appends to the spool; safe between threads, and after a fork."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._directory.mkdir(parents=True, exist_ok=True)
        self._lock = threading.Lock()
        self._file: int | None = None
        self._path = directory
        self._owner = os.getpid()

    def append(self, data: bytes) -> None:
        """Hand ``data`` to the operating system in one write: it survives the death of this process.

        Raises:
            StorageFull: the disk is full; nothing was written.
            Unavailable: the disk is broken; nothing was written.
        """
        with self._lock:
            with named_full_disk(self._directory):
                file = self._locked_file()
            try:
                size = os.fstat(file).st_size
                try:
                    written = os.write(file, data)
                except OSError as error:
                    os.ftruncate(file, size)
                    if is_full_disk(error):
                        raise _full(self._directory) from error
                    raise Unavailable(f"The impression could not be spooled: {error.strerror}.") from error
                if written != len(data):
                    os.ftruncate(file, size)  # the last bytes of room took a part of it
                    raise _full(self._directory)
                if size + written >= _LARGEST_FILE_BYTES:
                    os.rename(self._path, self._path.with_suffix(_CLOSED))
            finally:
                fcntl.flock(file, fcntl.LOCK_UN)

    def close(self) -> None:
        with self._lock:
            self._forget()

    def _locked_file(self) -> int:
        """Our file, locked; a new one if it was taken over, or belongs to the process we are a fork of."""
        while True:
            if self._owner != os.getpid():
                self._forget()  # the parent's description, and its lock, stay the parent's
            if self._file is None:
                # Named by time, so that files are sealed in the order in which they were begun.
                self._path = self._directory / f"{time.time_ns():020d}-{uuid.uuid4().hex}{_OPEN}"
                flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC
                self._file, self._owner = os.open(self._path, flags, 0o600), os.getpid()
            fcntl.flock(self._file, fcntl.LOCK_EX)
            if self._path.exists():
                return self._file
            self._forget()

    def _forget(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None


def _full(directory: Path) -> StorageFull:
    return StorageFull(
        f"The impression could not be spooled: the disk of {directory} is full. Free room there or give it "
        "more, then try again.",
        directory=str(directory),
    )


@contextmanager
def closed_files(
    directory: Path, now: datetime, *, min_bytes: int = 0, max_age_seconds: float = 0.0
) -> Iterator[list[Path]]:
    """Take over every writer's file that has ``min_bytes`` or is ``max_age_seconds`` old; oldest first.

    Files already closed come along. They are on disk (fsync) and belong to the caller until the block ends:
    a second caller waits. Whoever has sealed a file removes it.
    """
    directory.mkdir(parents=True, exist_ok=True)
    lock = os.open(directory / "seal.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for path in sorted(directory.glob(f"*{_OPEN}")):
            begun_at = int(path.name.partition("-")[0]) / 1e9
            old_enough = max_age_seconds <= 0 or now.timestamp() - begun_at >= max_age_seconds
            _close(path, 0 if old_enough else min_bytes)
        paths = sorted(directory.glob(f"*{_CLOSED}"))
        for path in paths:
            _fsync(path)
        yield paths
    finally:
        os.close(lock)  # which also unlocks it


def set_aside(path: Path) -> Path:
    """Keep a damaged file where sealing no longer meets it; its new path."""
    return path.rename(path.with_suffix(".damaged"))


def _close(path: Path, min_bytes: int) -> None:
    try:
        file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return  # its writer has just closed it for its size
    try:
        fcntl.flock(file, fcntl.LOCK_EX)
        if path.exists() and os.fstat(file).st_size >= min_bytes:
            os.rename(path, path.with_suffix(_CLOSED))
    finally:
        os.close(file)


def _fsync(path: Path) -> None:
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(file)
    finally:
        os.close(file)
