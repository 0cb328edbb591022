"""A process that is told to stop ends within its grace, whatever its main thread does."""

from __future__ import annotations

import threading

import pytest

from bedplate_workers.stopping import Stopping


class Left(Exception):
    """The process would have ended here."""


def leave(status: int) -> None:
    raise Left(status)


def test_who_ends_in_time_gives_nothing_back() -> None:
    given_back: list[bool] = []
    stopping = Stopping(60, lambda: given_back.append(True), leave)
    assert not stopping.told
    told = threading.Thread(target=stopping.begin)
    told.start()
    stopping.ended()
    told.join()
    assert stopping.told
    assert given_back == []


def test_what_is_at_hand_when_the_grace_is_over_goes_back_before_the_process_ends() -> None:
    given_back: list[bool] = []
    stopping = Stopping(0, lambda: given_back.append(True), leave)
    with pytest.raises(Left) as left:
        stopping.begin()
    assert given_back == [True]
    assert left.value.args == (0,)


def test_a_process_that_cannot_give_back_ends_all_the_same() -> None:
    def away() -> None:
        raise ConnectionError("the database is away")

    with pytest.raises(Left) as left:
        Stopping(0, away, leave).begin()
    assert left.value.args == (1,)
