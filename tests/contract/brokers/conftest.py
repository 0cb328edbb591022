"""Each kind of broker, on a place of its own, and worker processes that take messages from it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from bedplate_store.outbox import WORK_TASK
from bedplate_workers.app import create_app, send_task

PATIENCE_SECONDS = 120.0
LONG_SECONDS = 3600.0
"""A visibility time-out that no test outlasts."""


@dataclass
class Process:
    """A worker and the folder it writes to."""

    folder: Path
    running: subprocess.Popen[bytes]

    def begun(self) -> list[str]:
        return self._noted("begun")

    def ended(self) -> list[str]:
        return self._noted("ended")

    def let_go(self) -> None:
        """Let it end the messages that it holds."""
        (self.folder / "go").touch()

    def kill(self) -> None:
        self.running.kill()
        self.running.wait()

    def _noted(self, name: str) -> list[str]:
        path = self.folder / name
        return [line.split()[0] for line in path.read_text().splitlines()] if path.exists() else []


@dataclass
class Place:
    """A broker as one test sees it: empty, and nobody else's.

    Attributes:
        redelivers: a message that a killed worker held comes back by itself.
    """

    url: str
    redelivers: bool
    folder: Path
    processes: list[Process] = field(default_factory=list)

    def send(self, *messages: str, queue: str = "cpu") -> None:
        app = create_app(self.url)
        for message in messages:
            send_task(app, WORK_TASK, [message], queue)
        app.close()

    def worker(self, queues: str = "cpu", visibility_timeout_seconds: float = LONG_SECONDS) -> Process:
        """A new worker process, once it takes messages."""
        folder = self.folder / f"worker-{len(self.processes)}"
        folder.mkdir()
        module = "tests.contract.brokers.probe_worker"
        arguments = [str(folder), queues, self.url, str(visibility_timeout_seconds)]
        with (folder / "log").open("wb") as log:
            running = subprocess.Popen(
                [sys.executable, "-m", module, *arguments],
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            )
        process = Process(folder, running)
        self.processes.append(process)
        self.wait_until(lambda: (folder / "ready").exists())
        return process

    def wait_until(self, holds: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not holds():
            assert time.monotonic() < deadline, [
                (each.begun(), each.ended(), (each.folder / "log").read_text()[-2000:])
                for each in self.processes
            ]
            time.sleep(0.02)

    def close(self) -> None:
        for each in self.processes:
            each.kill()


@pytest.fixture
def place(broker_url: str, tmp_path: Path) -> Iterator[Place]:
    made = Place(broker_url, redelivers=not broker_url.startswith("filesystem:"), folder=tmp_path)
    yield made
    made.close()
