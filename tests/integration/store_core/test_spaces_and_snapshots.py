"""Spaces, writes and snapshots on both databases: who wins, who is refused, what stays."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from tests.integration.places import SERVERS

from bedplate.errors import (
    AlreadyExists,
    BatchTooLarge,
    Conflict,
    DimensionMismatch,
    EmptyBatch,
    InvalidRequest,
    KeyTypeMismatch,
    NonFiniteVectors,
    NotFound,
    SnapshotMoved,
    Unavailable,
)
from bedplate.wire.registry import SpaceSignature
from bedplate.wire.store import IndexSpecification
from bedplate_store import collection, compaction, group_commit, snapshots, spaces, writes
from bedplate_store.snapshots import PreparedSnapshot
from bedplate_store.spaces import SpaceKey
from bedplate_store.tables import spaces as tables

DIM = 4
NOW = datetime.now(UTC)  # objects carry the wall clock's time: a fixed one would grow older than the grace
LATER = NOW + timedelta(days=3650)
DAY = timedelta(days=1)


def rows(*values: float) -> np.ndarray:
    return np.array([[value] * DIM for value in values], np.float32)


def seen(store: Any, key: SpaceKey) -> dict[int, float]:
    """What a fresh reader sees of keys 0 to 19."""
    result = store.readers().get(*key).lookup(list(range(20)))
    return {row: result.vectors[row, 0] for row in range(20) if result.found[row]}


def test_migrations_and_tables_agree(store: Any) -> None:
    mine = {"spaces", "snapshots", "writes"}
    with store.database.engine.connect() as connection:
        context = MigrationContext.configure(
            connection,
            opts={
                "compare_type": True,
                "include_name": lambda name, kind, _: kind != "table" or name in mine,
                "include_object": lambda _, name, kind, *__: kind != "table" or name in mine,
            },
        )
        assert compare_metadata(context, tables.Base.metadata) == []


def test_a_space_is_made_once_and_never_changes(store: Any) -> None:
    key = store.space("item", dim=3)
    with store.database.read() as session:
        first = spaces.get_space(session, *key)
    assert (first.snapshot, first.rows, first.pending_rows) == (None, 0, 0)
    made = {
        **key._asdict(),
        "team": "foundation-team",
        "now": NOW + DAY,
    }
    with store.database.write() as session:
        again = spaces.ensure_space(session, signature=SpaceSignature(dim=3, key_type="int64"), **made)
    assert again == first
    with pytest.raises(AlreadyExists, match="dimension 3"), store.database.write() as session:
        spaces.ensure_space(session, signature=SpaceSignature(dim=5, key_type="int64"), **made)
    with pytest.raises(InvalidRequest), store.database.write() as session:
        spaces.ensure_space(session, signature=SpaceSignature(dim=3), **{**made, "space": "Not A Name"})


def test_a_space_made_by_many_at_once_is_one(store: Any) -> None:
    barrier = threading.Barrier(6)

    def make(_: int) -> None:
        barrier.wait()
        with store.database.write() as session:
            spaces.ensure_space(
                session,
                foundation="raced",
                version=1,
                space="item",
                signature=SpaceSignature(dim=3),
                team="a",
                now=NOW,
            )

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(make, range(6)))
    with store.database.read() as session:
        assert len(spaces.list_spaces(session, "raced")) == 1
        assert spaces.list_spaces(session, "raced", 2) == []


def test_unknown_spaces_are_named(store: Any) -> None:
    key = SpaceKey("core", 999, "item")
    calls: list[Callable[[], Any]] = [
        lambda: store.upsert(key, [1], rows(1)),
        lambda: store.delete(key, [1]),
        lambda: store.prepare(key),
    ]
    for call in calls:
        with pytest.raises(NotFound, match="core@999/item"):
            call()
    with store.database.read() as session:
        for read in (spaces.get_space, snapshots.list_snapshots, snapshots.current_sequence):
            with pytest.raises(NotFound, match="core@999/item"):
                read(session, *key)


def test_bad_writes_write_nothing(store: Any) -> None:
    key = store.space()
    before = sorted(store.objects.list(""))
    too_many = np.arange(writes.ROWS_MAX + 1)
    bad: list[tuple[type[Exception], Any, Any]] = [
        (EmptyBatch, [], np.empty((0, DIM))),
        (BatchTooLarge, too_many, np.zeros((len(too_many), DIM), np.float16)),
        (DimensionMismatch, [1], [[1.0] * (DIM + 1)]),
        (NonFiniteVectors, [1], [[np.nan] * DIM]),
        (NonFiniteVectors, [1], [[1e6] * DIM]),
        (KeyTypeMismatch, ["1"], rows(1)),
        (InvalidRequest, [1, 2], rows(1)),
    ]
    for error, keys, vectors in bad:
        with pytest.raises(error):
            store.upsert(key, keys, vectors)
    for error, keys in ((EmptyBatch, []), (BatchTooLarge, too_many), (KeyTypeMismatch, ["1"])):
        with pytest.raises(error):
            store.delete(key, keys)
    assert sorted(store.objects.list("")) == before
    with store.database.read() as session:
        assert snapshots.current_sequence(session, *key) == 0


def test_writes_are_counted_and_ordered(store: Any) -> None:
    key = store.space()
    assert store.upsert(key, [1, 2, 2], rows(1, 2, 3)).model_dump() == {
        "reference": str(key),
        "rows": 2,
        "sequence": 1,
        "token": f"{key}:1",
    }
    assert store.delete(key, [1, 7]).sequence == 2
    with store.database.read() as session:
        assert spaces.get_space(session, *key).pending_rows == 4
    assert seen(store, key) == {2: 3}


def test_writers_at_once_get_one_sequence_each(store: Any) -> None:
    key = store.space()
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda each: store.upsert(key, [each], rows(each)), range(12)))
    assert sorted(answer.sequence for answer in answers) == list(range(1, 13))
    assert seen(store, key) == {each: each for each in range(12)}


def test_a_snapshot_records_what_was_measured(store: Any) -> None:
    key = store.space()
    published = store.embed(key, list(range(20)), rows(*range(20)))
    assert (published.snapshot, published.rows, published.index_kind) == (1, 20, "flat")
    assert published.recall_at_10 == 1
    with store.database.read() as session:
        assert snapshots.list_snapshots(session, *key) == [published]
        space = spaces.get_space(session, *key)
    assert (space.snapshot, space.rows, space.pending_rows) == (1, 20, 0)


def test_publishing_is_compare_and_swap(store: Any) -> None:
    key = store.space()
    slow = store.prepare(key, store.partition(key, [1], rows(1)))
    store.embed(key, [2], rows(2))
    with pytest.raises(SnapshotMoved, match="at snapshot 1") as caught:
        store.publish(slow)
    assert caught.value.context == {"expected_snapshot": None, "snapshot": 1}
    assert seen(store, key) == {2: 2}


# On SQLite a second writer waits, so the row cannot change meanwhile.
@pytest.mark.parametrize("engines", [SERVERS], indirect=True)
def test_publishing_trusts_no_row_its_session_read_earlier(store: Any) -> None:
    key = store.space()
    slow = store.prepare(key, store.partition(key, [1], rows(1)))
    with store.database.write() as session:
        assert spaces.space_row(session, key).snapshot is None
        store.embed(key, [2], rows(2))
        with pytest.raises(SnapshotMoved):
            snapshots.publish(session, slow, objects=store.objects, job=None, now=NOW)


def test_of_many_publishers_one_wins(store: Any) -> None:
    key = store.space()
    prepared = [store.prepare(key, store.partition(key, [each], rows(each))) for each in range(1, 5)]
    barrier = threading.Barrier(4)

    def publish(each: PreparedSnapshot) -> bool:
        barrier.wait()
        try:
            store.publish(each)
        except SnapshotMoved:
            return False
        return True

    with ThreadPoolExecutor(4) as pool:
        won = list(pool.map(publish, prepared))
    assert won.count(True) == 1
    winner = won.index(True) + 1
    assert seen(store, key) == {winner: winner}


def test_a_job_publishes_once_however_often_it_tries(store: Any) -> None:
    key = store.space()
    prepared = store.prepare(key, store.partition(key, [1], rows(1)))
    first = store.publish(prepared, job="job-1")
    assert store.publish(PreparedSnapshot.from_json(prepared.to_json()), job="job-1", now=LATER) == first
    # Run again from the start, as after a kill before the acknowledgement, it comes to the same digest.
    again = store.prepare(key, store.partition(key, [1], rows(1)))
    assert again.digest == prepared.digest
    assert store.publish(again, job="job-1") == first


def test_an_embedding_does_not_undo_newer_writes(store: Any) -> None:
    key = store.space()
    store.embed(key, [1, 2, 3], rows(1, 2, 3))
    store.upsert(key, [1, 9], rows(10, 90))  # before the embedding: the model's vector is newer
    with store.database.read() as session:
        begun = snapshots.current_sequence(session, *key)
    partition = store.partition(key, [1, 2, 3], rows(-1, -2, -3))
    store.upsert(key, [2], rows(20))  # while the model computes: the write is newer
    store.delete(key, [3])
    published = store.publish(store.prepare(key, partition, covers_sequence=begun))
    # 9 was never embedded, and stays.
    assert seen(store, key) == {1: -1, 2: 20, 9: 90}
    assert published.rows == 4
    store.publish(compaction.prepare_compaction(store.database, store.objects, store.cache_dir, key, None))
    assert seen(store, key) == {1: -1, 2: 20, 9: 90}


def test_a_compaction_during_an_embedding_keeps_newer_writes_newer(store: Any) -> None:
    key = store.space()
    store.upsert(key, [1, 2], rows(1, 2))
    partition = store.partition(key, [1, 2], rows(-1, -2))
    store.upsert(key, [2], rows(20))
    _compact(store, key)
    store.publish(store.prepare(key, partition, covers_sequence=1))
    assert seen(store, key) == {1: -1, 2: 20}


def test_an_embedding_older_than_collected_writes_is_refused(store: Any) -> None:
    key = store.space()
    store.upsert(key, [1], rows(1))
    partition = store.partition(key, [1], rows(-1))
    store.upsert(key, [1], rows(2))
    _compact(store, key)
    keep = [partition]
    collection.collect(store.database, store.objects, now=LATER, grace=DAY, keep=keep)
    with pytest.raises(Conflict, match="embed again"):
        store.prepare(key, partition, covers_sequence=1)
    assert seen(store, key) == {1: 2}


def test_an_empty_catalogue_can_be_published(store: Any) -> None:
    key = store.space()
    assert store.publish(store.prepare(key)).rows == 0
    reader = store.readers().get(*key)
    assert reader.search(rows(1), 2).keys.tolist() == [[-1, -1]]
    assert not reader.lookup([1]).found.any()


def test_compaction_is_due_by_rows_or_by_writes(store: Any) -> None:
    many, often, quiet = store.space(), store.space(), store.space()
    for key in (many, quiet):
        store.embed(key, list(range(10)), rows(*range(10)))
    store.upsert(many, list(range(5)), rows(*range(5)))
    for _ in range(3):
        store.upsert(often, [1], rows(1))
    store.upsert(quiet, [1], rows(1))
    with store.database.read() as session:
        due = compaction.due(session, pending_rows_min=4, pending_share=0.3, pending_writes_max=3)
        assert set(due) & {many, often, quiet} == {many, often}
    _compact(store, many)
    with store.database.read() as session:
        due = compaction.due(session, pending_rows_min=4, pending_share=0.3, pending_writes_max=3)
        assert many not in due
        assert spaces.get_space(session, *many).pending_rows == 0


def test_collection_removes_what_nobody_needs_and_nothing_else(store: Any) -> None:
    key = store.space()
    orphan, kept = (store.partition(key, [each], rows(each)) for each in (500, 501))
    old = store.embed(key, [1, 2], rows(1, 2))
    store.upsert(key, [3], rows(3))
    _compact(store, key, now=NOW + DAY)
    store.upsert(key, [4], rows(4))
    reader = store.readers().get(*key)
    young = collection.collect(store.database, store.objects, now=datetime.now(UTC), grace=DAY)
    assert young.segments == young.indexes == young.writes == 0
    collected = collection.collect(store.database, store.objects, now=LATER, grace=DAY, keep=[kept])
    assert collected.segments >= 3  # the first base, its partition, the compacted write
    assert collected.bytes > 0
    assert not list(store.objects.list(f"segments/{orphan}/"))
    assert list(store.objects.list(f"segments/{kept}/"))
    assert seen(store, key) == {1: 1, 2: 2, 3: 3, 4: 4}
    # A reader opened before goes on.
    assert reader.lookup([1, 2, 3, 4]).found.all()
    with store.database.read() as session:
        assert [each.snapshot for each in snapshots.list_snapshots(session, *key)] == [2, 1]
    assert old.snapshot == 1
    again = collection.collect(store.database, store.objects, now=LATER, grace=DAY, keep=[kept])
    assert again == collection.Collected(0, 0, 0, 0)


def test_a_prepared_snapshot_whose_objects_were_collected_is_refused(store: Any) -> None:
    key = store.space()
    prepared = store.prepare(key, store.partition(key, [777], rows(777)))  # equal content would be shared
    collection.collect(store.database, store.objects, now=LATER, grace=DAY)
    with pytest.raises(Conflict, match="prepare it again"):
        store.publish(prepared)
    with store.database.read() as session:
        assert spaces.get_space(session, *key).snapshot is None


def test_a_write_whose_old_copy_is_collected_meanwhile_is_written_again(
    store: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = store.space()
    real, calls = group_commit.is_packed, []

    def collected_once(objects: Any, digest: str) -> bool:
        calls.append(digest)
        if len(calls) == 1:
            for name in list(objects.list(f"segments/{digest}/")):
                objects.delete(name)
        return bool(real(objects, digest))

    monkeypatch.setattr(group_commit, "is_packed", collected_once)
    assert store.upsert(key, [1], rows(1)).sequence == 1
    assert len(calls) == 2
    assert seen(store, key) == {1: 1}
    monkeypatch.setattr(group_commit, "is_packed", lambda *_: False)
    with pytest.raises(Unavailable):
        store.upsert(key, [1], rows(2))


def test_writers_and_a_collector_at_once_lose_nothing(store: Any) -> None:
    """The collector with no grace at all takes everything unreferenced, at every moment."""
    key = store.space()
    stop = threading.Event()

    def collect() -> int:
        rounds = 0
        while not stop.is_set():
            collection.collect(store.database, store.objects, now=LATER, grace=timedelta(0))
            rounds += 1
        return rounds

    with ThreadPoolExecutor(1) as pool:
        rounds = pool.submit(collect)
        try:
            for value in range(20):
                while True:
                    try:
                        store.upsert(key, [value], rows(value))
                    except Unavailable:
                        continue  # refused, not acknowledged
                    break
        finally:
            stop.set()
        assert rounds.result() > 0
    assert seen(store, key) == {value: value for value in range(20)}


def _compact(store: Any, key: SpaceKey, now: datetime = NOW) -> None:
    compaction.compact(
        store.database,
        store.objects,
        store.cache_dir,
        **key._asdict(),
        specification=IndexSpecification(),
        job=None,
        now=now,
    )
