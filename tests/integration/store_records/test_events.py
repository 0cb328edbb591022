"""Taking in events and reading timelines, on both databases."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bedplate.errors import BatchTooLarge, EmptyBatch, EventInFuture, EventsOutOfOrder
from bedplate.wire.store import Event, Item
from bedplate_store import events, items, sequences, timelines
from bedplate_store.database import Database
from bedplate_store.key_ranges import KeyRange
from bedplate_store.times import microseconds

Row = tuple[str, str, str, int]  # user, item, surface, seconds before now


def ingest(
    database: Database, now: datetime, rows: Sequence[Row], *, late: bool = False, features: bool = False
) -> int:
    batch = [
        Event(
            user=user,
            item=item,
            action="like",
            surface=surface,
            event_time=now - timedelta(seconds=seconds),
            label=1.0 if seconds % 2 else None,
            features={"age": seconds} if features else None,
        )
        for user, item, surface, seconds in rows
    ]
    with database.write() as session:
        accepted = events.ingest(session, events.EventColumns.from_wire(batch), now=now, allow_late=late)
    assert accepted.accepted == len(rows)
    return accepted.sequence


def timeline(
    database: Database, user: str, at: datetime, limit: int = 100, surface: str | None = None
) -> list[str]:
    with database.read() as session:
        return timelines.read(session, user, at=at, limit=limit, surface=surface).item


def test_a_timeline_holds_the_latest_events_strictly_before(database: Database, now: datetime) -> None:
    assert ingest(database, now, [("u", "a", "feed", 9), ("u", "b", "reels", 5), ("v", "x", "feed", 5)]) == 3
    assert ingest(database, now, [("u", "c", "feed", 5), ("u", "d", "feed", 1)]) == 5
    assert timeline(database, "u", now) == ["a", "b", "c", "d"]
    assert timeline(database, "u", now, limit=2) == ["c", "d"]
    assert timeline(database, "u", now, surface="feed") == ["a", "c", "d"]
    assert timeline(database, "u", now - timedelta(seconds=5)) == ["a"]
    assert timeline(database, "u", now - timedelta(seconds=5) + timedelta(microseconds=1)) == ["a", "b", "c"]
    assert timeline(database, "nobody", now) == []
    with database.read() as session:
        found = timelines.read(session, "u", at=now, limit=10)
    assert found.event_time_us.tolist() == [microseconds(now) - s * 1_000_000 for s in (9, 5, 5, 1)]
    assert found.label.dtype == np.float32
    assert found.label.tolist() == [1.0] * 4
    wire = found.to_wire(now)
    assert [event.event_time for event in wire.events] == [
        now - timedelta(seconds=seconds) for seconds in (9, 5, 5, 1)
    ]


def test_equal_times_keep_the_order_in_which_they_came(database: Database, now: datetime) -> None:
    ingest(database, now, [("u", item, "feed", 5) for item in "dbca"])
    ingest(database, now, [("u", item, "feed", 5) for item in "zy"])
    assert timeline(database, "u", now) == [*"dbcazy"]


@pytest.mark.parametrize(
    ("rows", "bad_row"),
    [
        ([("u", "a", "feed", 3), ("u", "b", "feed", 4)], 1),
        ([("v", "a", "feed", 9), ("v", "b", "reels", 8), ("v", "c", "reels", 8), ("v", "d", "feed", 10)], 3),
        ([("v", "a", "feed", 9), ("u", "b", "feed", 21), ("v", "c", "feed", 10)], 1),
    ],
)
def test_events_out_of_order_are_refused_whole(
    database: Database, now: datetime, rows: list[Row], bad_row: int
) -> None:
    ingest(database, now, [("u", "first", "feed", 20)])
    with pytest.raises(EventsOutOfOrder) as caught:
        ingest(database, now, rows, features=True)
    assert caught.value.context["row"] == bad_row
    assert "accepted_time" in caught.value.context
    with database.read() as session:
        assert sequences.current(session, "event") == 1
        assert sum(batch.num_rows for batch in timelines.scan(session, None, None)) == 1
        assert items.count(session) == 1  # "first"
        assert timelines.users(session) == ["u"]


def test_order_is_kept_within_a_surface_not_between_surfaces(database: Database, now: datetime) -> None:
    ingest(database, now, [("u", "a", "feed", 2)])
    ingest(database, now, [("u", "b", "reels", 8)])
    assert timeline(database, "u", now) == ["b", "a"]


def test_late_events_go_where_they_belong_when_allowed(database: Database, now: datetime) -> None:
    ingest(database, now, [("u", "a", "feed", 9), ("u", "c", "feed", 3)])
    ingest(database, now, [("u", "b", "feed", 5)], late=True)
    assert timeline(database, "u", now) == ["a", "b", "c"]
    with pytest.raises(EventsOutOfOrder):  # a late event does not turn the clock back
        ingest(database, now, [("u", "d", "feed", 4)])


def test_the_future_is_refused_beyond_a_minute(database: Database, now: datetime) -> None:
    ingest(database, now, [("u", "a", "feed", -60)])
    with pytest.raises(EventInFuture) as caught:
        ingest(database, now, [("u", "b", "feed", -60), ("u", "c", "feed", -61)])
    assert caught.value.context["row"] == 1
    assert timeline(database, "u", now + timedelta(days=1)) == ["a"]


def test_batches_have_a_size() -> None:
    with pytest.raises(EmptyBatch):
        events.EventColumns.from_wire([])
    many = pa.table({"user": pa.array(["u"] * (events.MAX_BATCH_ROWS + 1))})
    with pytest.raises(BatchTooLarge):
        events.EventColumns.from_arrow(many)


def test_features_update_the_catalogue_unless_they_are_older(database: Database, now: datetime) -> None:
    ingest(
        database, now, [("u", "a", "feed", 9), ("u", "a", "feed", 7), ("u", "b", "feed", 7)], features=True
    )
    ingest(database, now, [("u", "a", "feed", 8)], late=True, features=True)
    with database.read() as session:
        assert items.get_many(session, ["a", "b", "c"]) == {"a": {"age": 7}, "b": {"age": 7}}
        found = timelines.read(session, "u", at=now, limit=10)
        assert found.features == ['{"age":9}', '{"age":8}', '{"age":7}', '{"age":7}']


def test_users_and_their_ranges(database: Database, now: datetime) -> None:
    ingest(database, now, [(user, "a", "feed", 9) for user in ("b", "é", "B", "a")])
    ingest(database, now, [("a", "a", "reels", 20), ("later", "a", "feed", 1)])
    with database.read() as session:
        assert timelines.users(session) == ["B", "a", "b", "later", "é"]
        before = now - timedelta(seconds=9)
        assert timelines.users(session, before) == ["a"]
        assert timelines.count_users(session, before) == 1
        assert timelines.count_users(session) == 5
        ranges = timelines.user_ranges(session, None, 2)
        assert ranges == [KeyRange(None, "b", 2), KeyRange("b", None, 3)]
        assert [timelines.users(session, None, part) for part in ranges] == [["B", "a"], ["b", "later", "é"]]
        assert timelines.user_ranges(session, now - timedelta(days=1), 4) == []


def test_a_scan_is_ordered_by_user_time_and_sequence(database: Database, now: datetime) -> None:
    ingest(database, now, [("b", "1", "feed", 5), ("a", "2", "feed", 9), ("a", "3", "reels", 9)])
    ingest(database, now, [("a", "4", "feed", 9), ("a", "5", "feed", 3)])
    with database.read() as session:
        table = pa.Table.from_batches(timelines.scan(session, None, None))
        assert table.schema == timelines.EVENT_SCHEMA
        assert table["item"].to_pylist() == ["2", "3", "4", "5", "1"]
        window = timelines.scan(session, now - timedelta(seconds=9), now - timedelta(seconds=3))
        assert pa.Table.from_batches(window)["item"].to_pylist() == ["2", "3", "4", "1"]
        one = timelines.scan(session, None, None, KeyRange("b", None, 1))
        assert pa.Table.from_batches(one)["item"].to_pylist() == ["1"]


def test_writers_at_the_same_time_keep_the_order(database: Database, now: datetime) -> None:
    def write(number: int) -> bool:
        try:
            ingest(database, now, [("u", f"{number}", "feed", 100 - number)])
        except EventsOutOfOrder:
            return False
        return True

    with ThreadPoolExecutor(6) as pool:
        written = [number for number, done in enumerate(pool.map(write, range(12))) if done]
    with database.read() as session:
        table = pa.Table.from_batches(timelines.scan(session, None, None))
    assert table["item"].to_pylist() == [f"{number}" for number in written]
    assert written  # at least the first to come


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.tuples(st.sampled_from("uvw"), st.integers(0, 12)), min_size=1, max_size=12),
    st.integers(0, 6),
    st.sampled_from(["feed", None]),
)
def test_reading_many_is_reading_each(
    database: Database, now: datetime, wanted: list[tuple[str, int]], limit: int, surface: str | None
) -> None:
    with database.read() as session:
        filled = timelines.count_users(session) > 0
    if not filled:
        rows = [
            (user, f"{user}{n}", ["feed", "reels"][n % 2], 12 - n // 2) for n in range(20) for user in "uvx"
        ]
        ingest(database, now, rows)
    requests = [(user, now - timedelta(seconds=seconds)) for user, seconds in wanted]
    with database.read() as session:
        many = timelines.read_many(session, requests, limit=limit, surface=surface)
        for (user, at), found in zip(requests, many, strict=True):
            alone = timelines.read(session, user, at=at, limit=limit, surface=surface)
            assert (found.user, found.item) == (user, alone.item)
            assert (found.event_time_us < microseconds(at)).all()


def test_an_item_without_features_is_in_the_catalogue_too(database: Database, now: datetime) -> None:
    with database.write() as session:
        items.upsert(session, [Item(key="put", features={"year": 1995})], now=now)
    ingest(database, now, [("u", "put", "feed", 9), ("u", "bare", "feed", 9)])
    with database.read() as session:
        assert items.get_many(session, ["put", "bare"]) == {"put": {"year": 1995}, "bare": {}}
    ingest(database, now, [("v", "bare", "feed", 1)], features=True)
    ingest(database, now, [("v", "bare", "feed", 0)])
    with database.read() as session:
        assert items.get(session, "bare").features == {"age": 1}
