"""Snapshots opened before they are asked for, and let go when nobody asks any more."""

from __future__ import annotations

import gc
import sys
import threading
import time
import weakref
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy.exc import OperationalError

from bedplate.errors import NotFound
from bedplate.wire.store import IndexSpecification
from bedplate_store import collection, reader_processes
from bedplate_store import readers as readers_module
from bedplate_store.announcing import ReaderAnnouncer
from bedplate_store.reader_processes import OpenSpace, ReaderProcess, Unready
from bedplate_store.readers import SpaceReaders
from bedplate_store.spaces import SpaceKey

from .conftest import NOW

DIM = 4
PATIENCE_SECONDS = 60.0


def rows(*values: float) -> np.ndarray:
    return np.array([[value] * DIM for value in values], np.float32)


def eventually(seen: Callable[[], Any]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not seen():
        assert time.monotonic() < deadline
        time.sleep(0.005)


class Clock:
    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def opened(readers: SpaceReaders) -> dict[SpaceKey, tuple[int, bool]]:
    return {key: (space.snapshot, space.in_use) for key, space in readers.opened().items()}


def test_a_newer_version_is_open_before_anybody_asks_for_it(store: Any) -> None:
    old, new, other = store.space(), store.space(), store.space("user")
    readers = store.readers(follows=True)
    store.embed(old, [1], rows(1))
    readers.get(*old)
    store.embed(new, [1], rows(2))
    store.embed(other, [1], rows(3))
    assert opened(readers) == {old: (1, True)}
    readers.open_ahead()
    assert opened(readers) == {old: (1, True), new: (1, False)}
    store.embed(new, [1], rows(4))
    readers.open_ahead()
    assert opened(readers)[new] == (2, False)
    assert readers.get(*new).lookup([1]).vectors[0, 0] == 4
    assert opened(readers)[new] == (2, True)


def test_a_process_that_follows_no_alias_opens_nothing_ahead(store: Any) -> None:
    old, new = store.space(), store.space()
    readers = store.readers()
    for key in (old, new):
        store.embed(key, [1], rows(1))
    readers.get(*old)
    readers.open_ahead()
    assert set(readers.opened()) == {old}


def test_an_older_version_is_opened_where_an_alias_is_to_move_to_it(store: Any) -> None:
    old, new = store.space(), store.space()
    readers = store.readers(follows=True, now=lambda: NOW)
    for key in (old, new):
        store.embed(key, [1], rows(1))
    readers.get(*new)
    readers.open_ahead()
    assert set(readers.opened()) == {new}
    with store.database.write() as session:
        reader_processes.want(session, "core", old.version, NOW + timedelta(minutes=1))
    readers.open_ahead()
    assert opened(readers)[old] == (1, False)


def test_what_nobody_asks_for_is_let_go(store: Any) -> None:
    old, new = store.space(), store.space()
    clock = Clock()
    readers = store.readers(follows=True, clock=clock, keep_seconds=100)
    for key in (old, new):
        store.embed(key, [1], rows(1))
        readers.get(*key)
    clock.seconds = 60
    readers.get(*new)
    clock.seconds = 110
    readers.open_ahead()
    assert set(readers.opened()) == {new}
    clock.seconds = 200
    readers.open_ahead()
    assert readers.opened() == {}


def test_what_another_process_is_asked_for_is_not_let_go(store: Any) -> None:
    key = store.space()
    clock = Clock()
    readers = store.readers(follows=True, clock=clock, keep_seconds=100, now=lambda: NOW)
    store.embed(key, [1], rows(1))
    readers.get(*key)
    other = reader_processes.ReaderProcess(
        id="other",
        service="api",
        process="host/2",
        url="http://127.0.0.1:1",
        follows=True,
        node=None,
        spaces={key: reader_processes.OpenSpace(1, 1, in_use=True)},
    )
    with store.database.write() as session:
        reader_processes.announce(session, other, started_at=NOW, now=NOW)
    clock.seconds = 200
    readers.open_ahead()
    assert opened(readers)[key] == (1, False), "the next request for it may come here"
    with store.database.write() as session:
        reader_processes.withdraw(session, "other")
    readers.open_ahead()
    assert key not in readers.opened()


def test_what_is_being_opened_is_not_let_go(store: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    key = store.space()
    store.embed(key, [1], rows(1))
    readers = store.readers()
    whole = readers_module.open_snapshot

    def meanwhile(*arguments: Any) -> Any:
        monkeypatch.setattr(readers_module, "open_snapshot", whole)
        monkeypatch.setattr(readers, "_open_aside", lambda *_: None)
        readers.open_ahead()
        return whole(*arguments)

    monkeypatch.setattr(readers_module, "open_snapshot", meanwhile)
    readers.get(*key)
    assert opened(readers) == {key: (1, True)}


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux lists a process's mappings")
@pytest.mark.parametrize("kind", ["flat", "ivf", "hnsw"])
def test_old_files_are_unmapped_when_the_last_reader_is_gone(
    store: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: Any
) -> None:
    monkeypatch.setattr(store.objects, "local_path", lambda key: None)  # as if the objects were elsewhere
    key = store.space(dim=16)
    readers = SpaceReaders(store.database, store.objects, tmp_path, refresh_seconds=0, follows=True)
    vectors = np.random.default_rng(1).standard_normal((2000, 16), np.float32)
    # Turned round, not scaled: a graph of scaled vectors is the same graph, and its file the same file.
    for factor in (1, 2):
        partition = store.partition(key, np.arange(2000), vectors[:: 3 - 2 * factor])
        store.publish(store.prepare(key, partition, specification=IndexSpecification(kind=kind)))
        if factor == 1:
            held = readers.get(*key)
            held.lookup([1, 2, 3])
            held.search(vectors[:20], 10)
            held.search_by_key([1], 10, 64)
            gone = set(held.digests)

    def mapped() -> set[str]:
        maps = Path("/proc/self/maps").read_text()
        return {digest for digest in gone if digest in maps}

    readers.open_ahead()
    assert readers.get(*key).snapshot == 2
    gc.collect()
    assert mapped() == gone, "a request that is still under way keeps its snapshot"
    assert held.lookup([1]).found.all()
    del held
    readers.open_ahead()
    gc.collect()
    assert mapped() == set()
    readers.prune_cache(NOW + timedelta(days=36_500))
    assert not [path for path in tmp_path.rglob("*") if path.parent.name in gone]


def test_a_newer_snapshot_opens_aside_while_writes_go_on(store: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    key = store.space()
    store.embed(key, [1, 2], rows(1, 2))
    gate = threading.Event()
    warm = readers_module.warm

    def slow(*arguments: Any) -> None:
        assert gate.wait(PATIENCE_SECONDS)
        warm(*arguments)

    with store.readers(refresh_seconds=0.01) as readers:
        readers.get(*key)
        monkeypatch.setattr(readers_module, "warm", slow)
        store.upsert(key, [2], rows(5))
        store.embed(key, [1], rows(9))
        store.upsert(key, [3], rows(6))
        seen = readers.refresh_now(*key)
        assert (seen.snapshot, seen.sequence) == (1, 2)
        assert seen.lookup([1, 2, 3]).vectors[:, 0].tolist() == [1, 5, 6]
        gate.set()
        eventually(lambda: readers.get(*key).snapshot == 2)
        newest = readers.get(*key)
        assert newest.sequence == 2
        assert newest.lookup([1, 2, 3]).vectors[:, 0].tolist() == [9, 5, 6]


def test_a_superseded_snapshot_is_let_go_by_a_later_pass(store: Any) -> None:
    """Not by a request: where files are large, unmapping them takes milliseconds."""
    key = store.space()
    store.embed(key, [1], rows(1))
    clock = Clock()
    readers = store.readers(refresh_seconds=1.0, clock=clock)
    ended: list[bool] = []
    held = readers.get(*key)
    weakref.finalize(held.base, ended.append, True)
    store.embed(key, [1], rows(2))
    readers.open_ahead()
    assert readers.current(held).snapshot == 2
    assert held.lookup([1]).vectors[0, 0] == 1
    del held
    clock.seconds = 2
    readers.open_ahead()
    assert not ended
    clock.seconds = 4
    readers.open_ahead()
    assert ended


def test_writes_that_were_collected_are_left_to_the_newer_snapshot(
    store: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = store.space()
    store.embed(key, [1], rows(1))
    readers = store.readers()
    monkeypatch.setattr(readers_module, "_alive", lambda _thread: True)  # snapshots are opened aside
    readers.get(*key)
    store.upsert(key, [2], rows(2))
    store.upsert(key, [3], rows(3))
    store.publish(store.prepare(key, covers_sequence=2))
    later = NOW + timedelta(days=1)
    assert collection.collect(store.database, store.objects, now=later, grace=timedelta(0)).writes == 2
    store.upsert(key, [4], rows(4))
    found = readers.refresh_now(*key)
    assert (found.snapshot, found.sequence) == (2, 3), "only the newer snapshot has all writes"
    assert found.lookup([1, 2, 3, 4]).vectors[:, 0].tolist() == [1, 2, 3, 4]


def test_a_snapshot_that_cannot_be_opened_leaves_the_old_one(
    store: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = store.space()
    clock = Clock()
    store.embed(key, [1], rows(1))
    readers = store.readers(clock=clock, refresh_seconds=1000)
    readers.get(*key)
    store.embed(key, [1], rows(2))
    tries = []

    def broken(*_: Any) -> None:
        tries.append(clock())
        raise NotFound("gone")

    whole = readers_module.open_snapshot
    monkeypatch.setattr(readers_module, "open_snapshot", broken)
    for clock.seconds in (1.0, 2.0, 32.0):
        readers.open_ahead()
    assert tries == [1.0, 32.0], "not again at once: a large snapshot would be fetched again and again"
    assert readers.get(*key).lookup([1]).vectors[0, 0] == 1
    monkeypatch.setattr(readers_module, "open_snapshot", whole)
    clock.seconds = 70.0
    readers.open_ahead()
    assert readers.get(*key).lookup([1]).vectors[0, 0] == 2


def test_what_is_open_is_told_and_forgotten(store: Any) -> None:
    old, new = store.space(), store.space()
    clock, now = Clock(), [NOW]
    for key in (old, new):
        store.embed(key, [1], rows(1))
    readers = store.readers(follows=True, clock=clock, now=lambda: now[0])
    announcer = ReaderAnnouncer(
        store.database, readers, service="api", url="http://a", now=lambda: now[0], clock=clock
    )
    readers.get(*old)

    def unready() -> list[Unready]:
        with store.database.read() as session:
            return reader_processes.unready_for(session, "core", old.version, new.version, now[0])

    def listed(key: SpaceKey) -> list[Any]:
        with store.database.read() as session:
            return reader_processes.list_readers(session, key, now[0])

    assert unready() == []
    assert announcer.announce_if_due()
    assert not announcer.announce_if_due()
    assert [(one.space, one.reason) for one in unready()] == [(str(new), "not open yet")]
    readers.open_ahead()
    assert announcer.announce_if_due(), "what is new is told at once"
    assert unready() == []
    (one,) = listed(old)
    assert (one.service, one.snapshot, one.newest, one.in_use) == ("api", 1, True, True)
    (one,) = listed(new)
    assert not one.in_use
    clock.seconds += reader_processes.HEARTBEAT_SECONDS
    assert announcer.announce_if_due()
    store.embed(new, [1], rows(2))
    assert [one.reason for one in unready()] == ["at snapshot 1, not yet 2"]
    assert [each.newest for each in listed(new)] == [False]
    now[0] += timedelta(seconds=reader_processes.LIVE_SECONDS + 1)
    assert unready() == []
    assert listed(old) == [], "a silent process counts as dead"


@pytest.mark.parametrize("follows", [True, False], ids=["api", "inference"])
def test_a_process_that_starts_opens_what_others_of_its_kind_serve(store: Any, follows: bool) -> None:
    key, damaged = store.space(), SpaceKey("core", 1, "gone")
    store.embed(key, [1], rows(1))
    first = store.readers(follows=follows)
    first.get(*key)
    announcer = ReaderAnnouncer(
        store.database, first, service="api", url="http://a", now=lambda: datetime.now(UTC)
    )
    announcer.announce_if_due()
    other_kind = ReaderProcess(
        "2", "other", "host/2", "http://b", not follows, {damaged: OpenSpace(1, 1, in_use=True)}
    )
    same_kind = replace(other_kind, id="3", follows=follows)
    with store.database.write() as session:
        for process in (other_kind, same_kind):
            reader_processes.announce(session, process, started_at=datetime.now(UTC), now=datetime.now(UTC))
    with store.readers(follows=follows, refresh_seconds=0.01) as second:
        assert second.looked.wait(30), "one space that cannot be opened does not keep it from being ready"
        assert set(second.opened()) == {key}
        assert second.opened()[key].in_use
    announcer.start()
    announcer.close()
    with store.database.write() as session:
        reader_processes.withdraw(session, same_kind.id)
        assert reader_processes.served(session, datetime.now(UTC), follows=follows) == set()


def test_a_process_that_starts_without_a_database_looks_until_it_is_there(store: Any) -> None:
    readers = store.readers(follows=True, refresh_seconds=0.01)
    looked, real = threading.Event(), readers._database

    class Away:
        def read(self) -> Any:
            looked.set()
            raise OperationalError("SELECT", {}, ConnectionError("refused"))

    readers._database = Away()
    with readers:
        assert looked.wait(30)
        assert not readers.looked.is_set()
        readers._database = real
        assert readers.looked.wait(30)
