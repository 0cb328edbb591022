"""Where the embedded platform keeps everything: one directory, owned by one supervisor at a time."""

from __future__ import annotations

import fcntl
import json
import os
import secrets
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from bedplate.errors import Conflict

DEFAULT_DATA_DIRECTORY = Path("~/.bedplate")


class DataDirectoryInUse(Conflict):
    code = "data_directory_in_use"
    title = "Another platform runs on this data directory"


@dataclass(frozen=True)
class DataDirectory:
    """The paths and URLs under one root."""

    root: Path

    @classmethod
    def at(cls, root: Path | str | None) -> DataDirectory:
        """The directory at ``root``, or at BEDPLATE_DATA, or ``~/.bedplate``; nothing is made yet."""
        chosen = root or os.environ.get("BEDPLATE_DATA") or DEFAULT_DATA_DIRECTORY
        return cls(Path(chosen).expanduser().resolve())

    @property
    def registry_database_url(self) -> str:
        return f"sqlite:///{self.root / 'registry.db'}"

    @property
    def store_database_url(self) -> str:
        return f"sqlite:///{self.root / 'store.db'}"

    @property
    def objects_url(self) -> str:
        return f"file://{self.root / 'objects'}"

    @property
    def broker_url(self) -> str:
        return f"filesystem://{self.root / 'broker'}"

    @property
    def cache(self) -> Path:
        return self.root / "cache"

    @property
    def spool(self) -> Path:
        return self.root / "spool"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    @property
    def ready(self) -> Path:
        """A child without an HTTP port leaves a file here once it works."""
        return self.root / "ready"

    @property
    def metrics(self) -> Path:
        """Where API processes that share a port keep their counts while running."""
        return self.root / "metrics"

    @property
    def admin_token(self) -> Path:
        return self.root / "admin-token"

    @property
    def client(self) -> Path:
        """``{"url", "token"}`` for the SDK and the command line."""
        return self.root / "client.json"

    @property
    def signing_key(self) -> Path:
        return self.root / "signing-key"

    @property
    def shard_secret(self) -> Path:
        """What the API and the store nodes know of each other."""
        return self.root / "shard-secret"

    @property
    def processes(self) -> Path:
        """``{"supervisor": pid, "children": {name: pid}, "url", "inference_url"}`` while running."""
        return self.root / "processes.json"

    @property
    def lock(self) -> Path:
        return self.root / "lock"

    def create(self) -> None:
        """Make the directory and its folders, readable by their owner alone."""
        self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        for folder in ("objects", "broker", "cache", "spool", "logs", "ready"):
            (self.root / folder).mkdir(mode=0o700, exist_ok=True)

    def read_or_make_secret(self, path: Path, prefix: str = "") -> str:
        """The secret in ``path``; made at random, mode 0600, where there is none yet."""
        if not path.exists():
            write_private(path, prefix + secrets.token_urlsafe(32) + "\n")
        return path.read_text(encoding="utf-8").strip()


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner can read; it appears whole or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def read_json(path: Path) -> dict[str, Any]:
    """The document in ``path``, or an empty one where there is none."""
    if not path.exists():
        return {}
    document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return document


class DirectoryLock:
    """Held by the supervisor while it runs; the kernel frees it whatever way the process ends."""

    def __init__(self, directory: DataDirectory) -> None:
        self._directory = directory
        self._descriptor: int | None = None

    def acquire(self) -> None:
        """Take the lock.

        Raises:
            DataDirectoryInUse: another process holds it; the detail names the process and its URL.
        """
        descriptor = os.open(self._directory.lock, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise DataDirectoryInUse(self._occupied()) from None
        self._descriptor = descriptor

    def _occupied(self) -> str:
        running = read_json(self._directory.processes)
        who = f"process {running['supervisor']}, {running['url']}" if running else "it is just starting"
        return (
            f"A platform runs on {self._directory.root} already ({who}). "
            "Use that one, stop it first, or give this one another directory with --data."
        )

    def release(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def __enter__(self) -> Self:
        self.acquire()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.release()
