"""Whatever happened and in whatever order it came in: the join against a slow, obvious one."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.integration.places import Ground

from bedplate.wire.store import Event, Outcome, TrainingSetCreate
from bedplate_store import events, outcomes, training_files, training_sets
from bedplate_store.database import Database
from bedplate_store.impressions import ImpressionLog, ImpressionRecord
from bedplate_store.objects import ObjectStore
from bedplate_store.times import instant

NOW = datetime(2026, 11, 22, tzinfo=UTC)
NAMES = itertools.count()
USERS, ITEMS, VERSIONS = ["u", "v"], ["a", "b", "c", "d"], ["core@1", "core@2"]
TIMES = st.integers(0, 12)


@dataclass(frozen=True)
class World:
    seen: list[tuple[str, str, str, int]]  # user, item, surface, time, in the order of arrival
    served: list[tuple[str, int, list[str], list[str]]]  # user, time, items, versions
    labels: dict[tuple[int, str], float]
    seals: list[int]  # after which requests the log is sealed


@st.composite
def worlds(draw: st.DrawFn) -> World:
    served = draw(
        st.lists(
            st.tuples(
                st.sampled_from(USERS),
                TIMES,
                st.lists(st.sampled_from(ITEMS), min_size=1, max_size=3, unique=True),
                st.sampled_from([VERSIONS, VERSIONS, VERSIONS[:1]]),
            ),
            max_size=8,
        )
    )
    shown = [(index, item) for index, (_, _, items, _) in enumerate(served) for item in items]
    return World(
        seen=draw(
            st.lists(
                st.tuples(
                    st.sampled_from(USERS),
                    st.sampled_from(ITEMS),
                    st.sampled_from(["feed", "reels"]),
                    TIMES,
                ),
                max_size=14,
            )
        ),
        served=served,
        labels={key: draw(st.sampled_from([0.0, 1.0])) for key in shown if draw(st.integers(0, 3))},
        seals=draw(st.lists(st.integers(0, 8), max_size=2)),
    )


@pytest.fixture(scope="module")
def store(
    ground: Ground, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Database, ObjectStore, Path]]:
    folder = tmp_path_factory.mktemp("store")
    with ground.places(folder) as places:
        database = Database(places.store_url)
        yield database, places.objects.open(), folder / "spool"
        database.close()


def play(
    world: World, name: str, store: tuple[Database, ObjectStore, Path], bits: np.random.Generator
) -> list[ImpressionRecord]:
    """Let the world happen on surfaces and to users of its own, so that examples share one database."""
    database, objects, spool = store
    log = ImpressionLog(spool, objects, database)
    records = []
    for number, (user, time, items, versions) in enumerate(world.served):
        record = ImpressionRecord(
            request_id=f"{name}-{number}",
            user=f"{name}-{user}",
            surface=f"{name}-feed",
            served_at_us=time * 1000,
            items=items,
            expert=None,
            scores=None,
            tae={
                version: bits.integers(0, 2**16, (len(items), 3), np.uint16).view(np.float16)
                for version in versions
            },
            predictions={version: bits.random(len(items), np.float32) for version in versions},
        )
        records.append(record)
        log.append(record)
        if number in world.seals:
            log.seal(NOW)
    log.seal(NOW)
    with database.write() as session:
        for user, item, surface, time in world.seen:
            event = Event(
                user=f"{name}-{user}",
                item=item,
                action="like",
                surface=f"{name}-{surface}",
                event_time=instant(time * 1000),
            )
            columns = events.EventColumns.from_wire([event])
            events.ingest(session, columns, now=NOW, allow_late=True)
        batch = [
            Outcome(request_id=f"{name}-{number}", item=item, label=value, outcome_time=NOW)
            for (number, item), value in world.labels.items()
        ]
        if batch:
            outcomes.record(session, f"{name}-feed", batch, now=NOW)
    return records


def build(
    store: tuple[Database, ObjectStore, Path], name: str, window: tuple[int, int], cuts: list[int]
) -> tuple[str, list[dict[str, Any]], list[dict[str, Any]], dict[str, bytes]]:
    """The digest, the two tables as rows, and the bytes of the embeddings."""
    database, objects, _ = store
    body = TrainingSetCreate(
        name="set",
        surface=f"{name}-feed",
        versions=VERSIONS,
        window_start=instant(window[0] * 1000),
        window_end=instant(window[1] * 1000),
        history_length=3,
    )
    with database.write() as session:
        made = training_sets.create(session, body, team="team", now=NOW)
    edges = [window[0], *sorted({cut for cut in cuts if window[0] < cut < window[1]}), window[1]]
    parts = [
        training_sets.join_partition(
            database,
            objects,
            {"training_set": made.id, "start_us": first * 1000, "end_us": last * 1000},
        )
        for first, last in itertools.pairwise(edges)
    ]
    prepared = training_sets.prepare(database, objects, made.id, parts)
    rows = [*training_sets.read_files(objects, prepared.files, "rows")]
    requests = [*training_sets.read_files(objects, prepared.files, "requests")]
    bits = {}
    if rows:
        for version in VERSIONS:
            column = pa.concat_tables(rows)[f"tae:{version}"].combine_chunks()
            bits[version] = column.flatten().to_numpy().tobytes()
    return (
        prepared.digest,
        [row for table in rows for row in table.to_pylist()],
        [row for table in requests for row in table.to_pylist()],
        bits,
    )


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    worlds(),
    st.tuples(st.integers(0, 6), st.integers(7, 13)),
    st.lists(TIMES, max_size=3),
    st.integers(0, 2**32),
)
def test_the_join_is_the_obvious_one(
    store: tuple[Database, ObjectStore, Path],
    world: World,
    window: tuple[int, int],
    cuts: list[int],
    seed: int,
) -> None:
    name = f"w{next(NAMES)}"
    records = play(world, name, store, np.random.default_rng(seed))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training_files, "ROWS_PER_FILE", 3)
        digest, rows, requests, bits = build(store, name, window, [])
        assert build(store, name, window, [])[0] == digest
        assert build(store, name, window, cuts)[0] == digest

    expected = []
    for number, (_, time, items, versions) in enumerate(world.served):
        if window[0] <= time < window[1] and versions == VERSIONS:
            expected += [
                (time, f"{name}-{number}", position, item, world.labels[number, item])
                for position, item in enumerate(items)
                if (number, item) in world.labels
            ]
    expected.sort()
    ids = [request["request_id"] for request in requests]
    found = [(ids[row["request_index"]], row["position"], row["item"], row["label"]) for row in rows]
    assert found == [row[1:] for row in expected]
    assert ids == [request_id for request_id, _ in itertools.groupby(row[1] for row in expected)]

    by_id = {record.request_id: record for record in records}
    for version, logged in bits.items():
        served = [by_id[row[1]].tae[version][row[2]].tobytes() for row in expected]
        assert logged == b"".join(served)
    for request in requests:
        record = by_id[request["request_id"]]
        history = sorted(
            (
                (time * 1000, arrival, item)
                for arrival, (user, item, surface, time) in enumerate(world.seen)
                if f"{name}-{user}" == record.user and surface == "feed"
            )
        )
        before = [event for event in history if event[0] < record.served_at_us][-3:]
        assert request["history_item"] == [item for _, _, item in before]
        ages_ms = [(record.served_at_us - time_us) // 1000 for time_us, _, _ in before]
        assert request["history_age_ms"] == ages_ms
        assert all(age >= 1 for age in ages_ms)
