"""Progress on standard error: a bar for everything that takes long, plain lines where nobody watches."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)


class Steps:
    """The demo's steps, their bars and how long each took.

    Attributes:
        seconds: step title -> wall-clock seconds.
    """

    def __init__(self, console: Console) -> None:
        self.console = console
        self.seconds: dict[str, float] = {}

    @contextmanager
    def step(self, title: str, total: int) -> Iterator[Callable[[int], None]]:
        """Show a bar while the block runs; it calls what it is given with every further count."""
        columns = (
            TextColumn("{task.description:<44}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        began = time.monotonic()
        with Progress(*columns, console=self.console, disable=not self.console.is_terminal) as progress:
            task = progress.add_task(title, total=total)
            yield lambda count: progress.update(task, advance=count)
            progress.update(task, completed=total)
        self.seconds[title] = time.monotonic() - began
        if not self.console.is_terminal:
            self.console.print(f"{title}: {self.seconds[title]:.1f} s", highlight=False)

    def say(self, text: str) -> None:
        self.console.print(text, highlight=False)
