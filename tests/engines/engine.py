"""What all engines have in common, and how the process of a private server is kept."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, suppress
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Self

START_SECONDS = 90.0
_POLL_SECONDS = 0.2


class Absent(Exception):
    """This machine has no such engine; the message says what would change that."""


class Engine(ABC):
    """A server, found or private. Use it as a context manager: a private one ends with the block.

    Args:
        private: it is to be disturbed, so it must not be one that ``variable`` names.
    """

    name: ClassVar[str]
    variable: ClassVar[str]
    """Names the URL of a running server that the tests may use."""
    install: ClassVar[str]

    def __init__(self, private: bool = False) -> None:
        self._place = self.binary() if private else self.where()
        self._server: PrivateServer | None = None

    @classmethod
    def where(cls) -> str | None:
        """The URL of the server to use, or the path of the binary that starts one; None: neither."""
        return os.environ.get(cls.variable) or cls.binary()

    @classmethod
    @abstractmethod
    def binary(cls) -> str | None:
        """The path of what starts a private server; None: this machine has none."""

    @abstractmethod
    def start(self) -> None:
        """Find or start the server and wait until it works; raises Absent."""

    def stop(self) -> None:
        """End a private server and remove its files; a found one is left as it is."""
        if self._server is not None:
            self._server.remove()

    def log(self) -> str:
        """What a private server has said last."""
        return self._private.log()

    def _found(self) -> str:
        """The URL or path that :meth:`start` goes by."""
        if self._place is None:
            raise self.absent()
        return self._place

    @property
    def _private(self) -> PrivateServer:
        if self._server is None:
            raise RuntimeError("this server is not ours")
        return self._server

    @classmethod
    def absent(cls) -> Absent:
        return Absent(f"NO {cls.name.upper()}: {cls.install}, or set {cls.variable} to a server's URL")

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


class PrivateServer:
    """The process of a server of our own, in a folder of its own.

    Args:
        ready: returns once the server works, and raises ``not_ready`` until then.
        user: whom the process runs as, where it refuses to be root's.
    """

    def __init__(
        self,
        name: str,
        ready: Callable[[], object],
        not_ready: type[Exception] | tuple[type[Exception], ...],
        user: str | None = None,
    ) -> None:
        self._ready, self._not_ready, self._user = ready, not_ready, user
        # Not in pytest's folder: that one is closed to other users, and its path too long for some sockets.
        self.folder = Path(tempfile.mkdtemp(prefix=f"bedplate-{name}-"))
        if user is not None:
            shutil.chown(self.folder, user)
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, command: Sequence[str | Path], environment: Mapping[str, str] | None = None) -> None:
        """Start it and wait until it works."""
        with open(self.folder / "server.log", "ab") as log:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.folder,
                env={**os.environ, **(environment or {})},
                user=self._user,
                group=self._user,
                extra_groups=[] if self._user else None,
                start_new_session=True,  # some start others, which have to end with them
            )
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                self._ready()
                return
            except self._not_ready as error:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    said = self.log()
                    self.remove()
                    raise RuntimeError(f"{command[0]} did not start:\n{said}") from error
                time.sleep(_POLL_SECONDS)

    def run(self, command: Sequence[str | Path]) -> None:
        """Run a command of the server's in its folder, as its user, to its end."""
        done = subprocess.run(
            command,
            cwd=self.folder,
            user=self._user,
            group=self._user,
            extra_groups=[] if self._user else None,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"{command[0]} failed: {done.stderr}")

    def kill(self) -> None:
        """kill -9 of the server and all it started."""
        if self._process is not None:
            with suppress(ProcessLookupError):  # it has ended by itself
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    def remove(self) -> None:
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def log(self) -> str:
        return (self.folder / "server.log").read_text(errors="replace")[-3000:]


def free_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port
