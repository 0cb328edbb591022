"""When a remote store is asked again, with a clock that nobody waits for."""

from __future__ import annotations

import logging
from collections.abc import Callable

import pytest

from bedplate.errors import NotFound, ObjectDamaged, Unavailable
from bedplate_store.objects.retries import Ending, Fault, FaultReason, Patience, Retries


class Time:
    """Moves only when somebody sleeps or a call takes its time."""

    def __init__(self) -> None:
        self.now = 0.0
        self.slept: list[float] = []

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


def failing(times: int, time: Time, seconds: float = 0.0) -> Callable[[], str]:
    left = times

    def call() -> str:
        nonlocal left
        time.now += seconds
        if left:
            left -= 1
            raise Fault("timeout", Unavailable("out of reach"))
        return "answer"

    return call


def make(time: Time, counted: list[tuple[str, FaultReason, Ending]], **patience: float) -> Retries:
    return Retries(
        Patience(**patience),  # type: ignore[arg-type]
        lambda *each: counted.append(each),
        clock=time.clock,
        sleep=time.sleep,
        chance=lambda: 0.0,
    )


def test_waits_double_up_to_the_longest() -> None:
    time = Time()
    retries = make(time, [], attempts=6, first_wait_seconds=1, longest_wait_seconds=5)
    assert retries.run("get", "key", failing(5, time)) == "answer"
    assert time.slept == [1, 2, 4, 5, 5]


def test_no_retry_is_silent(caplog: pytest.LogCaptureFixture) -> None:
    time, counted = Time(), []  # type: ignore[var-annotated]
    with caplog.at_level(logging.WARNING):
        make(time, counted, attempts=3).run("get", "some/key", failing(1, time))
        with pytest.raises(Unavailable, match="out of reach"):
            make(time, counted, attempts=3).run("get", "some/key", failing(9, time))
    assert counted == [
        ("get", "timeout", "retried"),
        ("get", "timeout", "retried"),
        ("get", "timeout", "retried"),
        ("get", "timeout", "gave_up"),
    ]
    assert len(caplog.messages) == 4
    assert "some/key" in caplog.text
    assert "giving up" in caplog.messages[-1]


def test_the_deadline_counts_from_the_first_failure() -> None:
    """A long download that fails at its end is tried again; one that fails for long is not."""
    time = Time()
    retries = make(time, [], attempts=9, deadline_seconds=60, first_wait_seconds=1)
    assert retries.run("get_file", "large", failing(1, time, seconds=500)) == "answer"
    time = Time()
    with pytest.raises(Unavailable):
        make(time, [], attempts=9, deadline_seconds=60, first_wait_seconds=1).run(
            "get_file", "large", failing(9, time, seconds=50)
        )
    assert time.slept == [1, 2], "at 50 and at 101 s; the third failure lies 103 s after the first"


def test_a_wait_is_shortened_by_chance_and_by_half_at_the_most() -> None:
    patience = Patience(first_wait_seconds=1)
    assert patience.wait_seconds(1, 0, 0.0) == 1
    assert patience.wait_seconds(1, 0, 0.5) == 0.75
    assert patience.wait_seconds(patience.attempts, 0, 0.5) is None


def test_what_does_not_pass_is_told_at_once() -> None:
    time = Time()

    def gone() -> str:
        raise NotFound("gone")

    with pytest.raises(NotFound):
        make(time, []).run("get", "key", gone)
    assert time.slept == []


def test_bytes_that_stay_wrong_are_damage() -> None:
    time = Time()

    def wrong() -> str:
        raise Fault("digest", ObjectDamaged("damaged"))

    with pytest.raises(ObjectDamaged):
        make(time, [], attempts=2).run("get", "key", wrong)
    assert len(time.slept) == 1


def test_an_answer_may_be_slow_but_not_too_slow() -> None:
    patience = Patience(read_seconds=10, least_bytes_per_second=100)
    assert patience.allows(0, 10)
    assert not patience.allows(0, 10.1)
    assert patience.allows(1000, 20)
    assert not patience.allows(999, 20)
