"""The heartbeat file, which ``python -m bedplate_workers.alive`` looks at for Kubernetes.

A thread beats, because a partition may keep the main thread for hours; but only while the main thread is
where it should be: at a partition, at the broker's door, or passing through Celery's loop again and again. A
consumer that no longer takes messages, without an error, is so noticed and started anew.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from celery import Celery, bootsteps

BEAT_SECONDS = 2.0
TICK_SECONDS = 2.0
STALLED_SECONDS = 30.0
"""A connected loop that has not come round for so long is not well."""


class HeartbeatFile:
    """A file whose modification time says when the process was last well. None: nobody looks."""

    def __init__(self, path: Path | None, clock: Callable[[], float] = time.monotonic) -> None:
        self._path = path
        self._clock = clock
        self._beat_at: float | None = None

    def beat(self) -> None:
        """Touch the file, at most once in ``BEAT_SECONDS``."""
        now = self._clock()
        if self._path is None or (self._beat_at is not None and now - self._beat_at < BEAT_SECONDS):
            return
        self._path.touch()
        self._beat_at = now


class WorkerPulse:
    """Whether a Celery worker is well, and a thread that says so while it is."""

    def __init__(self, file: HeartbeatFile, clock: Callable[[], float] = time.monotonic) -> None:
        self._file = file
        self._clock = clock
        self._at_work = False
        self._ticked_at: float | None = None
        self._ended = threading.Event()

    def well(self) -> bool:
        """False once the loop of a worker that is connected and idle does not come round any more."""
        ticked_at = self._ticked_at
        if self._at_work or ticked_at is None:
            return True
        return self._clock() - ticked_at < STALLED_SECONDS

    @contextmanager
    def working(self) -> Iterator[None]:
        """The main thread is at a partition, for as long as that takes."""
        self._at_work = True
        try:
            yield
        finally:
            if self._ticked_at is not None:
                self._ticked_at = self._clock()
            self._at_work = False

    def tick(self) -> None:
        """The loop came round."""
        self._ticked_at = self._clock()

    def disconnected(self) -> None:
        """There is no loop until the broker is back."""
        self._ticked_at = None

    def start(self) -> None:
        """Beat from now on, in a thread of its own."""
        threading.Thread(target=self._run, name="pulse", daemon=True).start()

    def close(self) -> None:
        self._ended.set()

    def _run(self) -> None:
        while not self._ended.wait(BEAT_SECONDS):
            if self.well():
                self._file.beat()


def watch_loop(app: Celery, pulse: WorkerPulse) -> None:
    """Have Celery's loop tick. With a broker that has no event loop, the embedded one, a timer's thread ticks
    instead, and a stalled consumer is not noticed.
    """

    class LoopTicks(bootsteps.StartStopStep):  # type: ignore[misc]  # celery ships no types
        requires = ("celery.worker.consumer.tasks:Tasks",)

        def __init__(self, consumer: Any, **options: Any) -> None:
            super().__init__(consumer, **options)
            self._timer: Any = None

        def start(self, consumer: Any) -> None:
            pulse.tick()
            self._timer = consumer.timer.call_repeatedly(TICK_SECONDS, pulse.tick)

        def stop(self, _consumer: Any) -> None:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            pulse.disconnected()

    app.steps["consumer"].add(LoopTicks)
