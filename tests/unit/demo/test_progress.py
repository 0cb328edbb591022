"""The steps' clock and their bars."""

from __future__ import annotations

import io
import time
from datetime import UTC, datetime

import pytest
from rich.console import Console
from rich.progress import Progress

from bedplate.wire.store import Job
from bedplate_services.demo.progress import Bar, Steps, in_words, process_start


class Clock:
    """Time stands still until a test moves it."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def job(*stages: tuple[str, int]) -> Job:
    """One with stages of 10 rows each, so many of them done."""
    return Job(
        id="j",
        kind="embed",
        subject="core@1/item",
        state="running",
        team="foundation",
        attempts=1,
        created_at=datetime(2026, 1, 1, tzinfo=UTC),
        progress=[{"stage": name, "done": done, "total": 10} for name, done in stages],  # type: ignore[list-item]
    )


def steps(terminal: bool = False) -> tuple[Steps, Clock, io.StringIO]:
    clock, out = Clock(), io.StringIO()
    console = Console(file=out, width=160, force_terminal=terminal, color_system=None)
    return Steps(console, began=90.0, clock=clock), clock, out


def test_a_step_takes_its_time_and_the_total_holds_what_lies_between() -> None:
    made, clock, out = steps()
    with made.step("one", 2) as bar:
        bar.advance(2)
        clock.now += 3.5
    clock.now += 1
    with made.step("two", None):
        clock.now += 2
    assert made.seconds == {"one": 3.5, "two": 2.0}
    assert made.total_seconds() == 16.5
    assert out.getvalue().splitlines() == ["one: 3.5 s", "two: 2.0 s"]


def test_a_step_done_twice_adds_up() -> None:
    made, clock, _ = steps()
    for _ in range(2):
        with made.step("same", 1):
            clock.now += 2
    assert made.seconds == {"same": 4.0}


def test_a_step_that_fails_is_not_among_those_done() -> None:
    made, _, out = steps()

    def fail() -> None:
        with made.step("broken", 1):
            raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        fail()
    assert made.seconds == {}
    assert out.getvalue() == ""


def test_a_job_is_full_only_when_its_last_stage_is_done_and_each_is_named() -> None:
    progress = Progress(disable=True)
    task = progress.add_task("embedding", total=None)
    bar = Bar(progress, task, "embedding")
    seen = []
    for stages in ((10, 0, 0), (10, 10, 4), (10, 10, 10)):
        bar.follow(job(*zip(("embed", "index", "publish"), stages, strict=True)))
        seen.append((progress.tasks[task].description, progress.tasks[task].completed))
    assert seen == [("embedding: index", 10), ("embedding: publish", 24), ("embedding: publish", 30)]
    assert progress.tasks[task].total == 30


def test_a_finished_step_stands_full_under_its_own_title() -> None:
    made, _, out = steps(terminal=True)
    with made.step("embedding", None) as bar:
        bar.reach(4, 9)
        bar.stage("index")
    last = out.getvalue().rpartition("embedding")[2]
    assert "9/9" in last
    assert "index" not in last


def test_the_process_began_before_this_test() -> None:
    assert 0 < process_start() < time.monotonic()


@pytest.mark.parametrize(
    ("seconds", "words"), [(311.2, "5 min 11 s"), (59.4, "59 s"), (59.6, "1 min 0 s"), (0.2, "0 s")]
)
def test_seconds_in_words(seconds: float, words: str) -> None:
    assert in_words(seconds) == words
