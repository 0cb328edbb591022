"""Writers that come together: each gets its own sequence, and one that is refused touches no other."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest

from bedplate.errors import NotFound, TooManyPendingWrites
from bedplate.wire.store import WriteAnswer
from bedplate_store import compaction
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
        first = pool.submit(commits.commit, key, infos[0], NOW)
        entered.wait()
        later = [
            pool.submit(commits.commit, space, info, NOW)
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
    writes._commits.commit = lambda space, info, now: kept.append(info) or 1  # type: ignore[method-assign]
    try:
        writes.upsert(**key._asdict(), keys=[1], vectors=rows(1, value), now=NOW)
    finally:
        writes._commits.commit = commit  # type: ignore[method-assign]
    return kept[0]
