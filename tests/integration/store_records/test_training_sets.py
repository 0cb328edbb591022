"""Training sets through the ledger, on both databases: what is joined, left out, and stays the same."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Any

import pyarrow as pa
import pytest

from bedplate.errors import Conflict, InternalError, InvalidRequest, NotFound
from bedplate.wire.store import Event, Outcome, TrainingSet, TrainingSetCreate
from bedplate_store import (
    events,
    jobs,
    leases,
    outbox,
    outcomes,
    training_files,
    training_joins,
    training_sets,
)
from bedplate_store.database import Database
from bedplate_store.impressions import ImpressionLog, ImpressionRecord
from bedplate_store.objects import ObjectStore
from bedplate_store.tables.records import TrainingSetRow
from bedplate_store.times import instant, microseconds

Make = Callable[..., ImpressionRecord]


@pytest.fixture
def log(spool: Any, objects: ObjectStore, database: Database) -> ImpressionLog:
    return ImpressionLog(spool, objects, database)


def create(database: Database, now: datetime, **given: Any) -> TrainingSet:
    fields: dict[str, Any] = {
        "name": "daily",
        "surface": "feed",
        "versions": ["core@1", "core@2"],
        "window_start": instant(0),
        "window_end": instant(1_000_000_000),
    }
    with database.write() as session:
        body = TrainingSetCreate(**{**fields, **given})
        return training_sets.create(session, body, team="feed-team", now=now)


def work(database: Database, objects: ObjectStore, now: datetime) -> None:
    """Run everything the ledger says is due, as a worker does."""

    def run(_task: str, arguments: list[Any]) -> None:
        claim = leases.claim(database, arguments[0], "worker", 30, now)
        if claim is None:
            return  # a message of a cancelled job
        if claim.stage == "join":
            result = training_sets.join_partition(database, objects, claim.params)
            with database.write() as session:
                leases.commit(session, claim, result, now)
            return
        with database.read() as session:
            parts = jobs.results(session, claim.job_id, "join")
        prepared = training_sets.prepare(database, objects, claim.params["training_set"], parts)
        with database.write() as session:
            leases.commit(session, claim, training_sets.publish(session, prepared), now)

    while outbox.drain(database, run, now):
        pass


def build(database: Database, objects: ObjectStore, now: datetime, **given: Any) -> TrainingSet:
    made = create(database, now, **given)
    work(database, objects, now)
    with database.read() as session:
        return training_sets.get(session, made.id)


def tables(database: Database, objects: ObjectStore, made: TrainingSet) -> tuple[pa.Table, pa.Table]:
    with database.read() as session:
        entries = training_sets.files(session, objects, made.id)
    rows = pa.concat_tables(training_sets.read_files(objects, entries, "rows"))
    return rows, pa.concat_tables(training_sets.read_files(objects, entries, "requests"))


def see(database: Database, now: datetime, *rows: tuple[str, str, str, int], late: bool = False) -> None:
    batch = [
        Event(user=user, item=item, action=f"on-{item}", surface=surface, event_time=instant(time))
        for user, item, surface, time in rows
    ]
    with database.write() as session:
        events.ingest(session, events.EventColumns.from_wire(batch), now=now, allow_late=late)


def label(database: Database, now: datetime, *rows: tuple[str, str, float], **given: Any) -> None:
    surface = given.pop("surface", "feed")
    fields = {"outcome_time": instant(0), **given}
    batch = [
        Outcome(request_id=request_id, item=item, label=value, **fields) for request_id, item, value in rows
    ]
    with database.write() as session:
        outcomes.record(session, surface, batch, now=now)


def test_a_training_set_holds_what_was_served_and_what_could_be_known(
    log: ImpressionLog, objects: ObjectStore, database: Database, now: datetime, make_record: Make
) -> None:
    see(
        database,
        now,
        ("u1", "a", "feed", 1000),
        ("u1", "b", "feed", 2000),
        ("u1", "c", "reels", 3000),
        ("u1", "d", "feed", 5000),
        ("u1", "e", "feed", 9000),
    )
    served = make_record("r1", served_at_us=9000, items=["x", "y", "z"])
    earlier = make_record("r2", served_at_us=5000, items=["x"])
    log.append_many([served, earlier])
    log.seal(now)
    label(database, now, ("r1", "x", 1.0), ("r1", "z", 0.0), ("r2", "x", 1.0))
    label(database, now, ("r1", "y", 1.0), task="share")
    made = build(database, objects, now, history_length=2, versions=["core@2", "core@1"])
    assert (made.state, made.rows, made.requests, made.team) == ("ready", 3, 2, "feed-team")
    rows, requests = tables(database, objects, made)
    assert rows.column_names == [
        "request_index",
        "item",
        "position",
        "label",
        "tae:core@2",
        "prediction:core@2",
        "tae:core@1",
        "prediction:core@1",
    ]
    assert rows.schema.field("tae:core@1").type == pa.list_(pa.float16(), 4)
    assert rows["request_index"].to_pylist() == [0, 1, 1]
    assert rows["item"].to_pylist() == ["x", "x", "z"]
    assert rows["position"].to_pylist() == [0, 0, 2]
    assert rows["label"].to_pylist() == [1.0, 1.0, 0.0]
    for version in ("core@1", "core@2"):
        logged = earlier.tae[version].tobytes() + served.tae[version][[0, 2]].tobytes()
        assert rows[f"tae:{version}"].combine_chunks().flatten().to_numpy().tobytes() == logged
    assert requests.to_pylist() == [
        {
            "request_index": 0,
            "request_id": "r2",
            "user": "u1",
            "served_at": instant(5000),
            "history_item": ["a", "b"],
            "history_action": ["on-a", "on-b"],
            "history_age_ms": [4, 3],
        },
        {
            "request_index": 1,
            "request_id": "r1",
            "user": "u1",
            "served_at": instant(9000),
            "history_item": ["b", "d"],
            "history_action": ["on-b", "on-d"],
            "history_age_ms": [7, 4],
        },
    ]
    with database.read() as session:
        job = jobs.get(session, made.job)
    assert job.result == {
        "training_set": made.id,
        "digest": made.digest,
        "rows": 3,
        "requests": 2,
        "unlabelled": 1,
        "incomplete": 0,
    }


def test_a_surface_sees_only_its_own_requests_and_outcomes(
    log: ImpressionLog, objects: ObjectStore, database: Database, now: datetime, make_record: Make
) -> None:
    page = [make_record("r1", surface=surface, items=["x", "y"]) for surface in ("feed", "reels")]
    log.append_many(page)
    log.seal(now)
    label(database, now, ("r1", "x", 1.0))
    label(database, now, ("r1", "x", 0.0), ("r1", "y", 1.0), surface="reels")
    found = {}
    for record in page:
        rows, requests = tables(database, objects, build(database, objects, now, surface=record.surface))
        assert requests["request_id"].to_pylist() == ["r1"]
        logged = record.tae["core@1"][: rows.num_rows].tobytes()
        assert rows["tae:core@1"].combine_chunks().flatten().to_numpy().tobytes() == logged
        found[record.surface] = list(zip(rows["item"].to_pylist(), rows["label"].to_pylist(), strict=True))
    assert found == {"feed": [("x", 1.0)], "reels": [("x", 0.0), ("y", 1.0)]}


def test_rows_that_lack_a_version_are_left_out_and_counted(
    log: ImpressionLog, objects: ObjectStore, database: Database, now: datetime, make_record: Make
) -> None:
    log.append_many([make_record("r1", items=["a"]), make_record("r2", items=["a"], versions=("core@2",))])
    log.seal(now)
    label(database, now, ("r1", "a", 1.0), ("r2", "a", 1.0))
    both = build(database, objects, now)
    only = build(database, objects, now, versions=["core@2"])
    assert (both.rows, only.rows) == (1, 2)
    with database.read() as session:
        results = [jobs.get(session, made.job).result or {} for made in (both, only)]
    assert [result["incomplete"] for result in results] == [1, 0]
    assert [(made.unlabelled, made.incomplete) for made in (both, only)] == [(0, 1), (0, 0)]


def test_the_pins_keep_out_what_came_after(
    log: ImpressionLog, objects: ObjectStore, database: Database, now: datetime, make_record: Make
) -> None:
    see(database, now, ("u1", "a", "feed", 1000))
    log.append(make_record("r1", served_at_us=5000, items=["x", "y"]))
    log.seal(now)
    label(database, now, ("r1", "x", 1.0))
    first = create(database, now)
    see(database, now, ("u1", "late", "feed", 2000))
    log.append(make_record("r2", served_at_us=5000, items=["x"]))
    log.seal(now)
    label(database, now, ("r1", "y", 0.0), ("r2", "x", 1.0))
    work(database, objects, now)
    rows, requests = tables(database, objects, first)
    assert rows["item"].to_pylist() == ["x"]
    assert requests["history_item"].to_pylist() == [["a"]]
    later = build(database, objects, now)
    rows, requests = tables(database, objects, later)
    assert rows.num_rows == 3
    assert requests["history_item"].to_pylist() == [["a", "late"]] * 2


def test_outcomes_after_the_attribution_end_do_not_count(
    log: ImpressionLog, objects: ObjectStore, database: Database, now: datetime, make_record: Make
) -> None:
    log.append(make_record("r1", items=["a", "b"]))
    log.seal(now)
    label(database, now, ("r1", "a", 1.0), outcome_time=now - timedelta(hours=2))
    label(database, now, ("r1", "b", 1.0), outcome_time=now)
    assert build(database, objects, now, attribution_end=now - timedelta(hours=1)).rows == 1
    made = build(database, objects, now)
    assert (made.rows, made.attribution_end) == (2, now)


def test_the_digest_does_not_depend_on_how_the_work_was_cut(
    log: ImpressionLog,
    objects: ObjectStore,
    database: Database,
    now: datetime,
    make_record: Make,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(training_files, "ROWS_PER_FILE", 7)
    for batch in range(6):
        names = [f"r{batch}-{number}" for number in range(4)]
        log.append_many(
            [make_record(name, served_at_us=100 * batch + number) for number, name in enumerate(names)]
        )
        log.seal(now)
        label(database, now, *((name, item, 1.0) for name in names for item in ("i1", "i3")))
    whole = build(database, objects, now)
    monkeypatch.setattr(training_sets, "_ROWS_PER_PARTITION", 13)
    cut = build(database, objects, now, name="other")
    with database.read() as session:
        assert [len(jobs.results(session, made.job, "join")) for made in (whole, cut)] == [1, 3]
        entries = training_sets.files(session, objects, cut.id)
    assert whole.digest == cut.digest is not None
    assert [entry.rows for entry in entries] == [8, 4] * 6
    assert [entry.name for entry in entries[:3]] == [
        "rows-00000.arrow",
        "requests-00000.arrow",
        "rows-00001.arrow",
    ]
    rows, requests = tables(database, objects, cut)
    assert requests["request_index"].to_pylist() == [*range(24)]
    assert rows["request_index"].to_pylist() == [index // 2 for index in range(48)]
    assert requests["request_id"].to_pylist() == [f"r{index // 4}-{index % 4}" for index in range(24)]
    for entry in entries:
        data = objects.get(entry.object_key)
        assert (len(data), sha256(data).hexdigest()) == (entry.bytes, entry.sha256)
    assert cut.bytes == sum(entry.bytes for entry in entries)


def test_the_manifest_tells_how_it_was_made(
    log: ImpressionLog, objects: ObjectStore, database: Database, now: datetime, make_record: Make
) -> None:
    log.append(make_record("r1"))
    log.seal(now)
    label(database, now, ("r1", "i1", 1.0))
    made = build(database, objects, now)
    (key,) = (key for key in objects.list(f"training-sets/{made.id}/") if key.endswith(".json"))
    manifest = json.loads(objects.get(key))
    assert manifest["digest"] == made.digest
    assert manifest["counts"] == {"rows": 1, "requests": 1, "unlabelled": 2, "incomplete": 0}
    assert manifest["pins"] == {"event": 0, "outcome": 1, "log_segment": 1}
    assert TrainingSetCreate.model_validate(manifest["definition"]).attribution_end == now
    assert len([*objects.list(training_joins.parts_prefix(made.id))]) == 2
    assert training_sets.discard_parts(database, objects) == 2
    assert training_sets.discard_parts(database, objects) == 0
    rows, _ = tables(database, objects, made)
    assert rows.num_rows == 1


def test_an_empty_window_gives_an_empty_training_set(
    objects: ObjectStore, database: Database, now: datetime
) -> None:
    made = build(database, objects, now)
    assert (made.state, made.rows, made.requests, made.bytes) == ("ready", 0, 0, 0)
    with database.read() as session:
        assert training_sets.files(session, objects, made.id) == []


def test_states_and_errors(objects: ObjectStore, database: Database, now: datetime) -> None:
    for wrong in (
        {"window_end": instant(0)},
        {"versions": ["core@1", "core@1"]},
        {"versions": ["core@production"]},
        {"versions": ["core"]},
    ):
        with pytest.raises(InvalidRequest):
            create(database, now, **wrong)
    made = create(database, now)
    assert made.state == "building"
    with database.read() as session:
        with pytest.raises(NotFound):
            training_sets.get(session, "ts-none")
        with pytest.raises(Conflict, match="is building"):
            training_sets.files(session, objects, made.id)
    with database.write() as session:
        jobs.cancel(session, made.job, now)
    other = build(database, objects, now + timedelta(seconds=1), surface="reels")
    with database.read() as session:
        assert [found.state for found in training_sets.list(session)] == ["ready", "failed"]
        assert [found.id for found in training_sets.list(session, surface="reels")] == [other.id]


def test_a_published_set_does_not_change(
    log: ImpressionLog, objects: ObjectStore, database: Database, now: datetime
) -> None:
    made = build(database, objects, now)
    prepared = training_sets.prepare(database, objects, made.id, [])
    with database.write() as session:
        training_sets.publish(session, prepared)
        row = session.get_one(TrainingSetRow, made.id)
        row.digest = "0" * 64
    with database.write() as session, pytest.raises(Conflict, match="create another"):
        training_sets.publish(session, prepared)


def test_one_version_in_two_shapes_is_a_conflict(
    log: ImpressionLog, objects: ObjectStore, database: Database, now: datetime, make_record: Make
) -> None:
    log.append_many([make_record("r1", dim=4), make_record("r2", dim=8)])
    log.seal(now)
    made = create(database, now)
    params = {"training_set": made.id, "start_us": 0, "end_us": microseconds(now)}
    with pytest.raises(Conflict, match="two shapes"):
        training_sets.join_partition(database, objects, params)


def test_a_damaged_part_is_not_published(
    log: ImpressionLog, objects: ObjectStore, database: Database, now: datetime, make_record: Make
) -> None:
    log.append(make_record("r1"))
    log.seal(now)
    label(database, now, ("r1", "i1", 1.0))
    made = create(database, now)
    params = {"training_set": made.id, "start_us": 0, "end_us": microseconds(now)}
    part = training_sets.join_partition(database, objects, params)
    objects.put(part["parts"]["rows"]["key"], b"?")
    with pytest.raises(InternalError, match="is damaged"):
        training_sets.prepare(database, objects, made.id, [part])
