"""Progress on standard error: a bar for everything that takes long, plain lines where nobody watches."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from bedplate.wire.store import Job

_TITLE_WIDTH = 36


class Bar:
    """The bar of one step. Without a total it only shows that the step goes on, and for how long."""

    def __init__(self, progress: Progress, task: TaskID, title: str) -> None:
        self._progress, self._task, self._title = progress, task, title

    def advance(self, count: int) -> None:
        """That much more is done."""
        self._progress.update(self._task, advance=count)

    def reach(self, done: int, total: int) -> None:
        """So much of so much is done."""
        self._progress.update(self._task, completed=done, total=total)

    def stage(self, text: str) -> None:
        """Say beside the title what is being done now."""
        self._progress.update(self._task, description=f"{self._title}: {text}")

    def follow(self, job: Job) -> None:
        """Show a job: all of its stages on one bar, and which of them runs."""
        self.reach(sum(one.done for one in job.progress), sum(one.total for one in job.progress))
        running = next((one.stage for one in job.progress if one.done < one.total), None)
        if running is not None:
            self.stage(running)


class Steps:
    """The demo's steps, their bars and how long each took.

    Attributes:
        seconds: step title -> wall-clock seconds; a step that is done several times adds up.
    """

    def __init__(
        self, console: Console, began: float | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.console = console
        self.seconds: dict[str, float] = {}
        self._clock = clock
        self._began = clock() if began is None else began

    @contextmanager
    def step(self, title: str, total: int | None) -> Iterator[Bar]:
        """Show a bar while the block runs; ``total`` is None where nobody knows how much there is to do."""
        columns = (
            TextColumn(f"{{task.description:<{_TITLE_WIDTH}}}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        began = self._clock()
        with Progress(*columns, console=self.console, disable=not self.console.is_terminal) as progress:
            task = progress.add_task(title, total=total)
            yield Bar(progress, task, title)
            done = progress.tasks[task].total or 1
            progress.update(task, description=title, completed=done, total=done)
        took = self._clock() - began
        self.seconds[title] = self.seconds.get(title, 0.0) + took
        if not self.console.is_terminal:
            self.console.print(f"{title}: {took:.1f} s", highlight=False)

    def total_seconds(self) -> float:
        """Wall-clock seconds since the beginning, whatever lay between the steps included."""
        return self._clock() - self._began

    def say(self, text: str) -> None:
        self.console.print(text, highlight=False)


def process_start() -> float:
    """When this process began, on the clock of ``time.monotonic``: the interpreter's own start and the
    imports count, too. Where the system does not tell (other than Linux): now.
    """
    now = time.monotonic()
    try:
        fields = Path("/proc/self/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    except OSError:
        return now
    started_after_boot = int(fields[19]) / os.sysconf("SC_CLK_TCK")
    return now - (time.clock_gettime(time.CLOCK_BOOTTIME) - started_after_boot)


def in_words(seconds: float) -> str:
    """``5 min 11 s``, ``48 s``."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
