"""How soon writes are seen: step by step, beside other spaces, while a snapshot opens, ahead of writers."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from bedplate_store import opening
from bedplate_store import readers as readers_module
from bedplate_store.readers import SpaceReaders
from bedplate_store.spaces import SpaceKey
from bedplate_store.writes import Writes

from .conftest import DIM, NOW

PATIENCE_SECONDS = 60.0


def rows(*values: float) -> np.ndarray:
    return np.array([[value] * DIM for value in values], np.float32)


def eventually(seen: Callable[[], Any]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not seen():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def write(store: Any, key: SpaceKey, values: range) -> None:
    for value in values:
        store.upsert(key, [value], rows(value))


def seen(readers: SpaceReaders, key: SpaceKey, values: range) -> list[bool]:
    found: list[bool] = readers.get(*key).lookup(list(values)).found.tolist()
    return found


@pytest.mark.parametrize(("limit", "most"), [("STEP_WRITES", 2), ("STEP_BYTES", 2 * DIM * 4)])
def test_many_writes_are_shown_step_by_step(
    store: Any, monkeypatch: pytest.MonkeyPatch, limit: str, most: int
) -> None:
    monkeypatch.setattr(opening, limit, most)
    key = store.space(dtype="float32")
    readers = store.readers(refresh_seconds=0)
    write(store, key, range(1))
    readers.get(*key)
    write(store, key, range(1, 6))
    assert seen(readers, key, range(6)) == [True] * 3 + [False] * 3
    assert readers.get(*key).sequence == 5
    assert seen(readers, key, range(6)) == [True] * 6
    write(store, key, range(6, 11))
    assert readers.refresh_now(*key).sequence == 11, "all that is committed, in as many steps as it takes"


def test_many_writes_to_one_space_do_not_hold_up_another(store: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "STEP_WRITES", 1)
    busy, quiet = store.space(), store.space()
    readers = store.readers(refresh_seconds=1000)
    for key in (busy, quiet):
        write(store, key, range(1))
        readers.get(*key)
    write(store, busy, range(1, 4))
    write(store, quiet, range(1, 2))
    assert readers._refresh_round(), "the busy one is behind still"
    assert seen(readers, quiet, range(2)) == [True, True]
    assert seen(readers, busy, range(4)) == [True, True, False, False]
    assert readers._refresh_round()
    assert not readers._refresh_round()
    assert seen(readers, busy, range(4)) == [True] * 4


def test_a_space_that_is_being_opened_does_not_hold_up_another(
    store: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    large, quiet = store.space(), store.space()
    readers = store.readers(refresh_seconds=1000)
    for key in (large, quiet):
        write(store, key, range(1))
    readers.get(*quiet)
    write(store, quiet, range(1, 2))
    whole = readers_module.open_snapshot

    def meanwhile(*arguments: Any) -> Any:
        assert not readers._refresh_round()
        return whole(*arguments)

    monkeypatch.setattr(readers_module, "open_snapshot", meanwhile)
    assert readers.get(*large).sequence == 1
    assert seen(readers, quiet, range(2)) == [True, True]


def test_writes_above_a_new_snapshot_are_opened_aside(store: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    key = store.space()
    store.embed(key, [0], rows(0))
    gate, opened = threading.Event(), threading.Event()
    whole = readers_module.reader_of

    def slow(*arguments: Any) -> Any:
        opened.set()
        assert gate.wait(PATIENCE_SECONDS)
        return whole(*arguments)

    with store.readers(refresh_seconds=0.01) as readers:
        readers.get(*key)
        monkeypatch.setattr(readers_module, "reader_of", slow)
        store.embed(key, [0], rows(9))
        assert opened.wait(PATIENCE_SECONDS)
        write(store, key, range(1, 20))
        eventually(lambda: readers.get(*key).sequence == 19)
        assert readers.get(*key).snapshot == 1, (
            "the old snapshot shows what is written while the new one opens"
        )
        gate.set()
        eventually(lambda: readers.get(*key).snapshot == 2)
        newest = readers.get(*key)
        assert newest.sequence == 19, "the new snapshot is shown with all that the old one showed"
        assert newest.lookup(list(range(20))).vectors[:, 0].tolist() == [9, *range(1, 20)]


def test_a_snapshot_replaced_while_its_writes_are_opened_is_left_out(
    store: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = store.space()
    readers = store.readers(refresh_seconds=1000)
    store.embed(key, [0], rows(0))
    readers.get(*key)
    store.embed(key, [0], rows(1))
    whole = readers_module.reader_of

    def meanwhile(*arguments: Any) -> Any:
        monkeypatch.setattr(readers_module, "reader_of", whole)
        store.embed(key, [0], rows(2))
        return whole(*arguments)

    monkeypatch.setattr(readers_module, "reader_of", meanwhile)
    readers.open_ahead()
    assert readers.get(*key).snapshot == 1
    readers.open_ahead()
    assert readers.get(*key).snapshot == 3


class Clock:
    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def test_who_writes_waits_for_a_reader_that_lags(store: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readers_module, "_alive", lambda _thread: True)  # there is one, and it is slow
    clock = Clock()
    key = store.space()
    readers = store.readers(clock=clock, refresh_seconds=0.25)
    writes = Writes(store.database, store.objects, readers=readers)

    def upsert(value: int) -> int:
        answer = writes.upsert(**key._asdict(), keys=[value], vectors=rows(value), now=NOW)
        return answer.sequence

    upsert(0)
    assert readers.opened() == {}, "nobody reads here: there is nothing to wait for"
    readers.get(*key)
    clock.seconds = 0.25  # the refresh is due
    upsert(1)
    assert readers.current(readers.get(*key)).sequence == 1
    clock.seconds += 0.01
    assert upsert(2) == 3
    assert readers.opened()[key].sequence == 3
    clock.seconds += 0.01
    upsert(3)
    assert readers.opened()[key].sequence == 3, "it has just caught up"


def test_a_write_is_acknowledged_though_the_reader_cannot_be_refreshed(
    store: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(readers_module, "_alive", lambda _thread: True)
    clock = Clock()
    key = store.space()
    readers = store.readers(clock=clock, refresh_seconds=0.25)
    writes = Writes(store.database, store.objects, readers=readers)
    write(store, key, range(1))
    readers.get(*key)
    clock.seconds = 10.0
    tries = []

    def broken(*_: Any) -> None:
        tries.append(clock())
        raise OSError("the disk is gone")

    whole = readers_module.extended
    monkeypatch.setattr(readers_module, "extended", broken)
    for value in (1, 2):
        answer = writes.upsert(**key._asdict(), keys=[value], vectors=rows(value), now=NOW)
    assert answer.sequence == 3
    assert tries == [10.0], "the second does not wait for the same failure"
    monkeypatch.setattr(readers_module, "extended", whole)
    assert readers.refresh_now(*key).lookup([0, 1, 2]).found.all()
