"""What readers see: snapshot and writes, against a dictionary, and never a mixture."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import event

from bedplate.errors import (
    DimensionMismatch,
    InvalidRequest,
    KeyTypeMismatch,
    NonFiniteVectors,
    NotFound,
    SpaceNotReady,
)
from bedplate.wire.store import IndexSpecification
from bedplate_store import compaction
from bedplate_store.readers import SpaceReader, SpaceReaders
from bedplate_store.spaces import SpaceKey

DIM = 4
NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
KEYS = st.integers(0, 11)
VALUES = st.tuples(*[st.integers(-8, 8)] * DIM)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("upsert"), st.lists(st.tuples(KEYS, VALUES), min_size=1, max_size=6)),
        st.tuples(st.just("delete"), st.lists(KEYS, min_size=1, max_size=6)),
        st.tuples(st.just("embed"), st.lists(st.tuples(KEYS, VALUES), max_size=8)),
        st.tuples(st.just("compact"), st.none()),
    ),
    max_size=8,
)


@given(
    steps=STEPS,
    key_type=st.sampled_from(["int64", "string"]),
    metric=st.sampled_from(["inner_product", "l2"]),
    indexed=st.booleans(),
    k=st.integers(1, 13),
    query=VALUES,
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
def test_a_space_equals_a_dictionary(
    steps: list[tuple[str, Any]],
    key_type: str,
    metric: str,
    indexed: bool,
    k: int,
    query: tuple[int, ...],
    store: Any,
) -> None:
    space = store.space(key_type=key_type, metric=metric)
    name: Callable[[int], Any] = str if key_type == "string" else int
    specification = IndexSpecification() if indexed else None
    model: dict[Any, tuple[int, ...]] = {}
    readers = store.readers(refresh_seconds=0)
    started = False
    for action, content in steps:
        if action == "upsert":
            model.update({name(key): value for key, value in content})
            store.upsert(space, [name(key) for key, _ in content], [value for _, value in content])
        elif action == "delete":
            model = {key: value for key, value in model.items() if key not in set(map(name, content))}
            store.delete(space, [name(key) for key in content])
        elif action == "embed":
            model.update({name(key): value for key, value in content})
            vectors = np.array([value for _, value in content], np.float32).reshape(-1, DIM)
            partition = store.partition(space, [name(key) for key, _ in content], vectors)
            with store.database.read() as session:
                from_here = compaction.current_sequence(session, *space)
            store.publish(
                store.prepare(space, partition, covers_sequence=from_here, specification=specification)
            )
        elif started:
            compaction.compact(
                store.database,
                store.objects,
                store.cache_dir,
                **space._asdict(),
                specification=specification,
                job=None,
                now=NOW,
            )
        started = started or action != "compact"
        if started:
            # One that followed every step, and one that comes fresh, see the same.
            _check(readers.get(*space), model, k, query, metric, name)
            _check(store.readers().get(*space), model, k, query, metric, name)


def rows(*values: float) -> np.ndarray:
    """One vector for each value, filled with it."""
    return np.array([[value] * DIM for value in values], np.float32)


def _check(
    reader: SpaceReader,
    model: dict[Any, tuple[int, ...]],
    k: int,
    query: tuple[int, ...],
    metric: str,
    name: Callable[[int], Any],
) -> None:
    asked = [name(key) for key in range(13)]
    result = reader.lookup(asked)
    assert result.found.tolist() == [key in model for key in asked]
    assert result.vectors.dtype == reader.dtype
    assert result.vectors.tolist() == [list(model.get(key, (0,) * DIM)) for key in asked]
    found = reader.search([query], k)
    _check_hits(found.keys[0], found.scores[0], model, k, query, metric)
    by_key = reader.search_by_key(asked, k)
    assert by_key.found.tolist() == [key in model for key in asked]
    for row, key in enumerate(asked):
        others = {each: value for each, value in model.items() if each != key}
        own = model.get(key)
        hits, scores = by_key.keys[row], by_key.scores[row]
        _check_hits(hits, scores, others if own else {}, k, own or query, metric)


def _check_hits(
    keys: Any,
    scores: np.ndarray,
    model: dict[Any, tuple[int, ...]],
    k: int,
    query: tuple[int, ...],
    metric: str,
) -> None:
    def score(vector: tuple[int, ...]) -> float:
        pairs = zip(query, vector, strict=True)
        if metric == "l2":
            return -sum((a - b) ** 2 for a, b in pairs)
        return sum(a * b for a, b in pairs)

    hits = [key for key, value in zip(keys, scores, strict=True) if not np.isneginf(value)]
    assert len(hits) == len(set(hits)) == min(k, len(model))
    assert all(key in (-1, None) for key in list(keys)[len(hits) :])
    expected = sorted((score(value) for value in model.values()), reverse=True)[:k]
    assert scores[: len(hits)].tolist() == expected
    assert [score(model[key]) for key in hits] == expected


def test_a_reader_never_changes(store: Any) -> None:
    space = store.space()
    readers = store.readers(refresh_seconds=0)
    store.upsert(space, [1, 2], rows(1, 2))
    before = readers.get(*space)
    assert (before.snapshot, before.sequence) == (0, 1)
    for value in range(3, 80):
        store.upsert(space, [1, value], rows(value, value))
    store.embed(space, [5], rows(55))
    after = readers.get(*space)
    assert (after.snapshot, after.sequence) == (1, 78)
    assert before.lookup([1, 2, 5]).vectors[:, 0].tolist() == [1, 2, 0]
    assert before.search(rows(1), 3).keys.tolist() == [[2, 1, -1]]
    assert after.lookup([1, 2, 5]).vectors[:, 0].tolist() == [79, 2, 5]


def test_a_reader_in_between_grows_from_the_one_before(store: Any) -> None:
    """Many small refreshes share one buffer; none of them may disturb an older reader."""
    space = store.space()
    readers = store.readers(refresh_seconds=0)
    seen: list[SpaceReader] = []
    for value in range(1, 150):
        store.upsert(space, [value % 7], rows(value))
        seen.append(readers.get(*space))
    for last, reader in enumerate(seen, start=1):
        newest = [max((v for v in range(1, last + 1) if v % 7 == key), default=0) for key in range(7)]
        assert reader.lookup(list(range(7))).vectors[:, 0].tolist() == newest


def test_readers_look_at_the_database_no_more_often_than_told(store: Any) -> None:
    space = store.space()
    time = [0.0]
    readers = store.readers(refresh_seconds=0.5, clock=lambda: time[0])
    store.upsert(space, [1], rows(1))
    first = readers.get(*space)
    store.upsert(space, [1], rows(2))
    time[0] = 0.4
    assert readers.get(*space) is first
    assert readers.refresh_now(*space).sequence == 2
    store.upsert(space, [1], rows(3))
    time[0] = 1.0
    assert readers.get(*space).lookup([1]).vectors[0, 0] == 3


def test_an_unchanged_space_keeps_its_reader(store: Any) -> None:
    space = store.space()
    store.embed(space, [1], rows(1))
    readers = store.readers(refresh_seconds=0)
    assert readers.get(*space) is readers.get(*space)


def test_a_new_write_does_not_reopen_the_base(store: Any) -> None:
    space = store.space()
    store.embed(space, [1], rows(1))
    readers = store.readers(refresh_seconds=0)
    first = readers.get(*space)
    store.upsert(space, [2], rows(2))
    second = readers.get(*space)
    assert second is not first
    assert (second.base, second.index) == (first.base, first.index)


def test_the_thread_brings_new_writes_by_itself(store: Any) -> None:
    space = store.space()
    store.upsert(space, [1], rows(1))
    readers = store.readers(refresh_seconds=0.02)
    with readers:
        readers.get(*space)
        answer = store.upsert(space, [1], rows(2))
        entry = readers._entries[space]
        for _ in range(10_000):
            with entry.lock:  # held by the thread while it looks
                if entry.reader is not None and entry.reader.sequence == answer.sequence:
                    break
            readers._stopped.wait(0.001)
        assert entry.reader is not None
        assert entry.reader.lookup([1]).vectors[0, 0] == 2


def test_spaces_in_which_nothing_happened_cost_one_query_together(store: Any) -> None:
    spaces = [store.space() for _ in range(4)]
    time = [0.0]
    readers = store.readers(refresh_seconds=0.5, clock=lambda: time[0])
    for space in spaces:
        store.embed(space, [1], rows(1))
        readers.get(*space)
    asked: list[str] = []
    event.listen(store.database.engine, "before_cursor_execute", lambda *call: asked.append(call[2]))
    time[0] = 0.4
    assert not readers._refresh_round()
    assert len([statement for statement in asked if statement.startswith("SELECT")]) == 1
    time[0] = 0.8  # looked at 0.4 s ago
    store.upsert(spaces[2], [1], rows(7))
    seen = [readers.get(*space).lookup([1]).vectors[0, 0] for space in spaces]
    assert seen == [1, 1, 1, 1]
    assert not readers._refresh_round()
    assert [readers.get(*space).lookup([1]).vectors[0, 0] for space in spaces] == [1, 1, 7, 1]
    store.embed(spaces[0], [1], rows(9))
    time[0] = 1.2
    readers._refresh_round()
    assert [readers.get(*space).lookup([1]).vectors[0, 0] for space in spaces] == [9, 1, 7, 1]


def test_the_cache_keeps_only_what_readers_use(
    store: Any, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store.objects, "local_path", lambda key: None)  # as if the objects were elsewhere
    space = store.space()
    readers = SpaceReaders(store.database, store.objects, tmp_path, refresh_seconds=0)
    store.embed(space, [1], rows(1))
    readers.get(*space)
    store.upsert(space, [2], rows(2))
    store.embed(space, [1], rows(3))
    reader = readers.get(*space)
    (tmp_path / "building").mkdir()
    (tmp_path / "building" / "left-by-a-killed-builder").touch()
    now = datetime.now(UTC)
    assert readers.prune_cache(now - timedelta(hours=1)) == 0
    assert readers.prune_cache(now + timedelta(hours=1)) > 0
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {path.parent.name for path in files} == reader.digests
    fresh = SpaceReaders(store.database, store.objects, tmp_path).get(*space)
    assert (
        fresh.lookup([1, 2]).vectors[:, 0].tolist() == reader.lookup([1, 2]).vectors[:, 0].tolist() == [3, 2]
    )


def test_what_is_opened_again_stays_in_the_cache(
    store: Any, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store.objects, "local_path", lambda key: None)  # as if the objects were elsewhere
    space = store.space()
    store.embed(space, [1], rows(1))
    SpaceReaders(store.database, store.objects, tmp_path).get(*space)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    for path in files:
        os.utime(path, (0, 0))
    SpaceReaders(store.database, store.objects, tmp_path).get(*space)
    another_process = SpaceReaders(store.database, store.objects, tmp_path)
    assert another_process.prune_cache(datetime.now(UTC) - timedelta(hours=1)) == 0
    assert all(path.exists() for path in files)


def test_a_lost_database_leaves_the_reader_as_it_is(
    store: Any,
) -> None:
    space = store.space()
    store.upsert(space, [1], rows(1))
    readers = store.readers(refresh_seconds=0)
    before = readers.get(*space)
    with store.database.write() as session:
        session.connection().exec_driver_sql("ALTER TABLE writes RENAME TO hidden")
    try:
        with store.database.write() as session:
            session.connection().exec_driver_sql("UPDATE spaces SET sequence = sequence + 1")
        assert readers.get(*space) is before
    finally:
        with store.database.write() as session:
            session.connection().exec_driver_sql("ALTER TABLE hidden RENAME TO writes")
            session.connection().exec_driver_sql("UPDATE spaces SET sequence = sequence - 1")


def test_a_space_without_anything_is_not_ready(store: Any) -> None:
    space = store.space()
    readers = store.readers()
    with pytest.raises(SpaceNotReady, match="embed it"):
        readers.get(*space)
    store.upsert(space, [1], rows(1))
    assert readers.get(*space).snapshot == 0


def test_an_unknown_space_is_not_found_and_not_remembered(store: Any) -> None:
    readers = store.readers()
    with pytest.raises(NotFound, match="core@999/item"):
        readers.get("core", 999, "item")
    assert not readers._entries


def test_bad_questions_are_told_what_to_mend(store: Any) -> None:
    numbers, texts = store.space(), store.space(key_type="string")
    store.upsert(numbers, [1], rows(1))
    store.upsert(texts, ["a"], rows(1))
    readers = store.readers()
    reader = readers.get(*numbers)
    with pytest.raises(KeyTypeMismatch, match="int64"):
        reader.lookup(["1"])
    with pytest.raises(KeyTypeMismatch, match="string"):
        readers.get(*texts).lookup([1])
    with pytest.raises(DimensionMismatch):
        reader.search([[1.0] * (DIM + 1)], 1)
    with pytest.raises(NonFiniteVectors, match="row 0"):
        reader.search([[np.nan] * DIM], 1)
    for k in (0, 1001):
        with pytest.raises(InvalidRequest, match="1 to 1000"):
            reader.search(rows(1), k)
    assert reader.lookup([]).vectors.shape == (0, DIM)
    assert reader.search(np.empty((0, DIM)), 3).scores.shape == (0, 3)
    assert reader.search_by_key([], 3).scores.shape == (0, 3)


def test_the_reference_of_a_space_is_read_back() -> None:
    assert SpaceKey.parse("core@7/item") == SpaceKey("core", 7, "item")
    with pytest.raises(InvalidRequest, match="alias"):
        SpaceKey.parse("core@production/item")
