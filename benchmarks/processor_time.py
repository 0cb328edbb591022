"""Processor time of another process: where programs share the cores, it wanders less than rates do."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.figures import Sample, median


def processor_seconds(pid: int) -> float:
    """What all threads of a process have run until now; 0 where the system does not tell (Linux does).

    Threads that ended are not counted.
    """
    tasks = Path("/proc") / str(pid) / "task"
    if not tasks.exists():
        return 0.0
    return sum(int((tasks / task / "schedstat").read_text().split()[0]) for task in os.listdir(tasks)) / 1e9


@dataclass
class Meter:
    """Measures how much processor time a server spends on each unit of work of a round."""

    pid: int
    work: int
    seconds: list[float] = field(default_factory=list)

    def round(self, fire: Callable[[], Sample]) -> Sample:
        """``fire``, measured."""
        before = processor_seconds(self.pid)
        sample = fire()
        self.seconds.append((processor_seconds(self.pid) - before) / self.work)
        return sample

    @property
    def microseconds(self) -> float:
        """Median over the rounds, of one unit of work."""
        return 1e6 * median(self.seconds)
