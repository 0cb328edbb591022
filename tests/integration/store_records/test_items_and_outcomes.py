"""The catalogue and the outcomes, on both databases."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pyarrow as pa
import pytest

from bedplate.errors import BatchTooLarge, Conflict, EmptyBatch, EventInFuture, InvalidRequest, NotFound
from bedplate.wire.store import Item, Outcome, OutcomesAccepted
from bedplate_store import items, outcomes, sequences
from bedplate_store.database import Database
from bedplate_store.key_ranges import KeyRange


def put(database: Database, now: datetime, **features: Any) -> None:
    with database.write() as session:
        items.upsert(session, [Item(key=key, features=value) for key, value in features.items()], now=now)


def record(
    database: Database, now: datetime, *rows: tuple[str, str, float], **given: Any
) -> OutcomesAccepted:
    surface = given.pop("surface", "feed")
    fields = {"outcome_time": now, **given}
    batch = [
        Outcome(request_id=request_id, item=item, label=label, **fields) for request_id, item, label in rows
    ]
    with database.write() as session:
        return outcomes.record(session, surface, batch, now=now)


def test_items_are_replaced_and_read_back(database: Database, now: datetime) -> None:
    put(database, now, a={"year": 1995}, b={})
    put(database, now, a={"year": 1996, "genres": ["Drama"]})
    with database.read() as session:
        assert items.get(session, "a").features == {"year": 1996, "genres": ["Drama"]}
        assert items.get_many(session, ["b", "zz", "b"]) == {"b": {}}
        with pytest.raises(NotFound, match="zz"):
            items.get(session, "zz")


def test_items_are_walked_in_bytewise_order(database: Database, now: datetime) -> None:
    put(database, now, **{key: {} for key in ("b", "B", "é", "a", "10")})
    ordered = ["10", "B", "a", "b", "é"]
    with database.read() as session:
        assert [item.key for chunk in items.scan(session) for item in chunk] == ordered
        ranges = items.key_ranges(session, 2)
        assert ranges == [KeyRange(None, "a", 2), KeyRange("a", None, 3)]
        walked = [item.key for part in ranges for chunk in items.scan(session, part) for item in chunk]
        assert walked == ordered
        assert [item.key for item in items.page(session, after="B", limit=2)] == ["a", "b"]
        assert items.count(session) == 5


def test_items_come_as_arrow_too(database: Database, now: datetime) -> None:
    table = pa.table({"key": ["a", "b", "a"], "features": ['{"x": 1}', None, '{"x":2}']})
    with database.write() as session:
        items.upsert_arrow(session, table, now=now)
        assert items.get_many(session, ["a", "b"]) == {"a": {"x": 2}, "b": {}}
    with database.write() as session, pytest.raises(InvalidRequest, match="row 0"):
        items.upsert_arrow(session, pa.table({"key": ["c"], "features": ["[1]"]}), now=now)
    with database.write() as session, pytest.raises(EmptyBatch):
        items.upsert(session, [], now=now)


def test_outcomes_are_idempotent(database: Database, now: datetime) -> None:
    assert record(database, now, ("r1", "a", 1.0), ("r1", "b", 0.0)) == OutcomesAccepted(
        accepted=2, duplicates=0
    )
    again = record(database, now, ("r1", "b", 0.0), ("r1", "c", 0.1), ("r1", "c", 0.1))
    assert again == OutcomesAccepted(accepted=1, duplicates=2)
    assert record(database, now, ("r1", "a", 0.0), task="share").accepted == 1
    single = pa.table(
        {
            "request_id": ["r1"],
            "item": ["c"],
            "label": pa.array([0.1], pa.float32()),
            "outcome_time": pa.array([now], pa.timestamp("us", tz="UTC")),
        }
    )
    with database.write() as session:
        columns = outcomes.OutcomeColumns.from_arrow(single)
        assert outcomes.record(session, "feed", columns, now=now).duplicates == 1


@pytest.mark.parametrize(
    "rows",
    [
        [("r2", "x", 1.0), ("r1", "a", 0.0)],
        [("r3", "y", 1.0), ("r3", "y", 0.0)],
    ],
)
def test_an_outcome_does_not_change(
    database: Database, now: datetime, rows: list[tuple[str, str, float]]
) -> None:
    record(database, now, ("r1", "a", 1.0))
    with pytest.raises(Conflict, match="does not change"):
        record(database, now, *rows)
    with database.read() as session:
        assert sequences.current(session, "outcome") == 1


def test_outcomes_of_two_surfaces_do_not_meet(database: Database, now: datetime) -> None:
    assert record(database, now, ("r1", "a", 1.0)).accepted == 1
    assert record(database, now, ("r1", "a", 0.0), surface="reels").accepted == 1
    assert record(database, now, ("r1", "a", 0.0), surface="reels").duplicates == 1
    with pytest.raises(Conflict):
        record(database, now, ("r1", "a", 1.0), surface="reels")
    for surface, label in (("feed", 1.0), ("reels", 0.0), ("stories", None)):
        with database.read() as session:
            found = outcomes.labels(session, surface, "label", ["r1"], up_to=None, up_to_sequence=99)
        assert found["label"].to_pylist() == ([] if label is None else [label])


def test_bad_outcomes_are_refused(database: Database, now: datetime) -> None:
    with pytest.raises(EmptyBatch):
        record(database, now)
    with pytest.raises(InvalidRequest, match="finite"):
        record(database, now, ("r1", "a", float("nan")))
    with pytest.raises(EventInFuture):
        record(database, now, ("r1", "a", 1.0), outcome_time=now + timedelta(seconds=61))
    many = outcomes.OutcomeColumns(["r"] * 100_001, ["i"] * 100_001, ["label"] * 100_001, [1.0] * 100_001, [])
    with database.write() as session, pytest.raises(BatchTooLarge):
        outcomes.record(session, "feed", many, now=now)
    for table in (
        pa.table({"request_id": ["r"]}),
        pa.table({"request_id": ["r"], "item": ["i"], "label": ["one"], "outcome_time": [1]}),
        pa.table({"request_id": [None], "item": ["i"], "label": [1.0], "outcome_time": [1]}),
        pa.table({"request_id": ["r"], "item": ["i"], "label": [1.0], "outcome_time": [1], "task": ["No"]}),
    ):
        with pytest.raises(InvalidRequest):
            outcomes.OutcomeColumns.from_arrow(table)


def test_labels_are_read_as_of_a_time_and_a_sequence(database: Database, now: datetime) -> None:
    early = now - timedelta(seconds=10)
    record(database, now, ("r1", "a", 1.0), outcome_time=early)
    record(database, now, ("r1", "b", 0.0), outcome_time=now)
    record(database, now, ("r2", "a", 1.0), outcome_time=early)
    record(database, now, ("r1", "a", 0.0), task="share")
    record(database, now, ("r3", "a", 1.0), surface="reels")

    def labelled(up_to: datetime, up_to_sequence: int) -> set[tuple[str, str, float]]:
        with database.read() as session:
            table = outcomes.labels(
                session,
                "feed",
                "label",
                ["r1", "r2", "r3"],
                up_to=up_to,
                up_to_sequence=up_to_sequence,
            )
        assert table.schema.types == [pa.string(), pa.string(), pa.float32()]
        return {tuple(row.values()) for row in table.to_pylist()}

    assert labelled(now, 99) == {("r1", "a", 1.0), ("r1", "b", 0.0), ("r2", "a", 1.0)}
    assert labelled(early, 99) == {("r1", "a", 1.0), ("r2", "a", 1.0)}
    assert labelled(now, 2) == {("r1", "a", 1.0), ("r1", "b", 0.0)}
    assert labelled(early - timedelta(seconds=1), 99) == set()
