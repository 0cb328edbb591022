"""One child process of the supervisor: how it is started, when it is started again, and when not any more."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from bedplate.errors import Unavailable

_LOG_BYTES_MAX = 32 * 1024 * 1024
_LEASH = "bedplate_services.supervisor.leash"


class ChildFailed(Unavailable):
    """A child crashed again and again; the detail ends with the tail of its log."""

    code = "child_failed"
    title = "A part of the platform does not stay up"


@dataclass(frozen=True)
class ChildSpecification:
    """What to run. The module is named, never imported: the supervisor stands beside the workers.

    Attributes:
        environment: on top of what all children get.
        ready_url: answers 200 once the child works, or
        ready_file: exists once the child works; exactly one of the two is given.
        niceness: 0 to 19: how far it stands back where others want the processor.
    """

    name: str
    module: str
    arguments: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    ready_url: str | None = None
    ready_file: Path | None = None
    niceness: int = 0


@dataclass
class RestartPolicy:
    """Backoff between restarts, and how many crashes within a window mean that restarting does not help."""

    crashes_max: int = 5
    window_seconds: float = 60.0
    backoff_seconds: float = 0.5
    backoff_max_seconds: float = 8.0
    _crashes: deque[float] = field(default_factory=deque)

    def crashed(self, at_seconds: float) -> float | None:
        """Seconds to wait before the next start after a crash at a monotonic time; None: give up."""
        self._crashes.append(at_seconds)
        while at_seconds - self._crashes[0] > self.window_seconds:
            self._crashes.popleft()
        if len(self._crashes) >= self.crashes_max:
            return None
        return min(self.backoff_seconds * 2.0 ** (len(self._crashes) - 1), self.backoff_max_seconds)


class Child:
    """A running child. Its output goes to ``log``; it dies when the writing end of the leash closes."""

    def __init__(self, specification: ChildSpecification, log: Path, leash: int) -> None:
        self.specification = specification
        self.log = log
        self.process: subprocess.Popen[bytes] | None = None
        self._leash = leash

    def start(self, environment: Mapping[str, str]) -> None:
        if self.specification.ready_file is not None:
            self.specification.ready_file.unlink(missing_ok=True)
        self._turn_log()
        # -P: a file in the user's working directory must not shadow a module of the platform.
        command = [sys.executable, "-P", "-m", _LEASH, str(self._leash), str(self.specification.niceness)]
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                [*command, self.specification.module, *self.specification.arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**environment, **self.specification.environment, "PYTHONUNBUFFERED": "1"},
                pass_fds=(self._leash,),
                # Ctrl-C in the terminal reaches the supervisor alone, which then stops the children.
                start_new_session=True,
            )

    @property
    def pid(self) -> int | None:
        return self.process.pid if self.process is not None and self.process.poll() is None else None

    def wait(self) -> str:
        """Block until the process ends; how it ended, in words."""
        if self.process is None:
            raise RuntimeError(f"{self.specification.name} was never started")
        return _ending(self.process.wait())

    def send(self, number: signal.Signals) -> None:
        """Send a signal; nothing happens if the process has ended."""
        if self.process is not None:
            self.process.send_signal(number)

    def stop(self, grace_seconds: float) -> bool:
        """Wait for a process told to end; killed after ``grace_seconds``. False if it had to be killed."""
        if self.process is None:
            return True
        try:
            self.process.wait(max(grace_seconds, 0.0))
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            return False
        return True

    def log_tail(self, lines: int = 30) -> str:
        """The last lines of the log, at most 16 KiB of them."""
        if not self.log.exists():
            return ""
        with self.log.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - 16 * 1024))
            text = file.read().decode("utf-8", errors="replace")
        return "\n".join(text.splitlines()[-lines:])

    def _turn_log(self) -> None:
        if self.log.exists() and self.log.stat().st_size > _LOG_BYTES_MAX:
            self.log.replace(self.log.with_suffix(".log.1"))


def _ending(code: int) -> str:
    return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with status {code}"
