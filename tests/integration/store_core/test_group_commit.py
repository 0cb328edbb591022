"""Writers that come together: each gets its own sequence, and one that is refused touches no other."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from bedplate.errors import Conflict, NotFound, TooManyPendingWrites
from bedplate.wire.store import WriteAnswer
from bedplate_store import compaction, group_commit, spaces
from bedplate_store.group_commit import PendingWrite
from bedplate_store.spaces import SpaceKey
from bedplate_store.writes import Writes

DIM = 4
NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
WRITERS, ROUNDS = 4, 15


def rows(count: int, value: float) -> np.ndarray:
    return np.full((count, DIM), value, np.float32)


def test_the_highest_sequence_wins(store: Any) -> None:
    """Four writers replace the same keys at once, and every now and then delete them."""
    key, keys = store.space(), list(range(8))
    writes = Writes(store.database, store.objects)
    answers: dict[int, float | None] = {}
    together = threading.Barrier(WRITERS)

    def write(writer: int) -> None:
        for number in range(ROUNDS):
            value = None if (writer + number) % 5 == 0 else float(writer * ROUNDS + number)
            together.wait()
            if value is None:
                answer = writes.delete(**key._asdict(), keys=keys, now=NOW)
            else:
                answer = writes.upsert(**key._asdict(), keys=keys, vectors=rows(8, value), now=NOW)
            answers[answer.sequence] = value

    with ThreadPoolExecutor(WRITERS) as pool:
        list(pool.map(write, range(WRITERS)))
    assert sorted(answers) == list(range(1, WRITERS * ROUNDS + 1)), "no gaps, no sequence twice"
    newest = answers[WRITERS * ROUNDS]
    found = store.readers().get(*key).lookup(keys)
    assert found.found.tolist() == [newest is not None] * len(keys)
    assert np.unique(found.vectors).tolist() == [newest or 0.0]


def test_writers_that_wait_share_the_next_transaction(store: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    key, other = store.space(), store.space()
    gone = SpaceKey("core", key.version, "gone")
    writes = Writes(store.database, store.objects)
    commits = writes._commits
    infos = [_durable(writes, store, key, value) for value in range(4)]
    groups: list[int] = []
    real, entered, leave = commits._commit, threading.Event(), threading.Event()

    def slow(group: list[Any]) -> None:
        groups.append(len(group))
        entered.set()
        leave.wait()
        real(group)

    monkeypatch.setattr(commits, "_commit", slow)
    with ThreadPoolExecutor(4) as pool:
        first = pool.submit(commits.commit, key, infos[0], NOW, {})
        entered.wait()
        later = [
            pool.submit(commits.commit, space, info, NOW, {})
            for space, info in zip((key, gone, other), infos[1:], strict=True)
        ]
        while len(commits._waiting) < 3:
            pass
        leave.set()
        assert first.result() == 1
        assert later[0].result() == 2
        with pytest.raises(NotFound):
            later[1].result()
        assert later[2].result() == 1, "the refusal of one does not touch the others"
    assert groups == [1, 3]


def test_a_transaction_that_fails_fails_for_all_of_its_writers(
    store: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = store.space()
    writes = Writes(store.database, store.objects)

    def broken(*_: object) -> None:
        raise OSError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(writes._commits, "_record", broken)
        with pytest.raises(OSError, match="full"):
            writes.upsert(**key._asdict(), keys=[1], vectors=rows(1, 1), now=NOW)
    assert writes.upsert(**key._asdict(), keys=[1], vectors=rows(1, 2), now=NOW).sequence == 1


def test_writers_whose_transaction_fails_raise_errors_of_their_own(store: Any) -> None:
    """One object raised in several threads would collect the tracebacks of all of them."""
    key = store.space()
    commits = Writes(store.database, store.objects)._commits
    group = [
        PendingWrite(key, _durable(Writes(store.database, store.objects), store, key, value), NOW, {})
        for value in range(2)
    ]

    def away(_work: Any) -> None:
        raise OSError("the disk is full")

    commits._database = SimpleNamespace(transact=away)  # type: ignore[assignment]
    commits._commit(group)
    assert [str(write.error) for write in group] == ["the disk is full"] * 2
    assert group[0].error is not group[1].error
    assert [write.done for write in group] == [True, True]


def test_a_slow_object_store_is_asked_before_a_space_is_locked(
    store: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []
    for name in ("is_packed", "space_row"):
        real = getattr(group_commit, name)
        monkeypatch.setattr(
            group_commit, name, lambda *a, _real=real, _name=name, **k: steps.append(_name) or _real(*a, **k)
        )
    store.upsert(store.space(), [1], rows(1, 1))
    assert steps == ["is_packed", "space_row"]


def test_a_write_that_is_put_off_decides_no_attribute(store: Any) -> None:
    key = store.space(dtype="float32")
    writes = Writes(store.database, store.objects, pending_bytes_max=4 * DIM)

    def upsert(**attributes: Any) -> WriteAnswer:
        return writes.upsert(**key._asdict(), keys=[1], vectors=rows(1, 1), now=NOW, attributes=attributes)

    upsert(year=[1990])
    with pytest.raises(TooManyPendingWrites):
        upsert(kind=["x"])
    with store.database.read() as session:
        assert spaces.get_space(session, *key).attributes == {"year": "int64"}


def test_the_first_of_two_types_that_come_together_decides(store: Any) -> None:
    """Both were parsed before either was known."""
    key = store.space()
    writes = Writes(store.database, store.objects)
    first, second, third = (_durable(writes, store, key, value) for value in range(3))
    group = [
        PendingWrite(key, first, NOW, {"year": "float64"}),
        PendingWrite(key, second, NOW, {"year": "string", "kind": "string"}),
        PendingWrite(key, third, NOW, {"year": "int64"}),
    ]
    writes._commits._commit(group)
    assert [write.sequence for write in group] == [1, None, 2]
    assert isinstance(group[1].error, Conflict)
    with store.database.read() as session:
        assert spaces.get_space(session, *key).attributes == {"year": "float64"}


def test_writes_are_put_off_while_compaction_is_behind(store: Any) -> None:
    key, row_bytes = store.space(dtype="float32"), 4 * DIM
    writes = Writes(store.database, store.objects, pending_bytes_max=10 * row_bytes)

    def upsert(first: int, count: int) -> WriteAnswer:
        keys = list(range(first, first + count))
        return writes.upsert(**key._asdict(), keys=keys, vectors=rows(count, first), now=NOW)

    upsert(0, 6)
    with pytest.raises(TooManyPendingWrites, match="compaction") as refused:
        upsert(6, 6)
    assert refused.value.context["pending_rows"] == 6
    upsert(6, 4)
    with pytest.raises(TooManyPendingWrites):
        writes.delete(**key._asdict(), keys=[1], now=NOW)
    assert store.readers().get(*key).lookup(list(range(12))).found.sum() == 10
    compaction.compact(
        store.database,
        store.objects,
        store.cache_dir,
        **key._asdict(),
        specification=None,
        job=None,
        now=NOW,
    )
    # A batch that is larger than the bound is taken where nothing else waits: it would never fit otherwise.
    assert upsert(6, 20).rows == 20
    assert store.readers().get(*key).lookup(list(range(26))).found.all()


def _durable(writes: Writes, store: Any, key: SpaceKey, value: float) -> Any:
    """The info of a segment that is stored and that no transaction has recorded."""
    kept: list[Any] = []
    commit = writes._commits.commit
    writes._commits.commit = lambda space, info, now, attributes: kept.append(info) or 1  # type: ignore[method-assign]
    try:
        writes.upsert(**key._asdict(), keys=[1], vectors=rows(1, value), now=NOW)
    finally:
        writes._commits.commit = commit  # type: ignore[method-assign]
    return kept[0]
