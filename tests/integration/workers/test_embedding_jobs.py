"""Planning of embed jobs: what they cover, how they are cut, what is refused."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import numpy as np
import pytest

from bedplate.errors import AlreadyExists, Conflict, InvalidRequest
from bedplate.references import VersionReference
from bedplate.wire.registry import SpaceSignature
from bedplate.wire.store import EmbedRequest, Event, IndexSpecification, Item, Job
from bedplate_store import embedding_jobs, events, items
from bedplate_store.embedding_jobs import EmbedPlan
from bedplate_store.event_columns import EventColumns
from bedplate_store.tables.jobs import JobRow, PartitionRow
from bedplate_store.writes import Writes

ITEM = SpaceSignature(dim=2, dtype="float32", entity="item")
USER = SpaceSignature(dim=2, dtype="float32", entity="user")


def plan(
    bench: Any,
    space: str = "item",
    signature: SpaceSignature = ITEM,
    version: str = "core@1",
    **request: Any,
) -> Job:
    with bench.workplace.store.write() as session:
        return embedding_jobs.plan_embed(
            session,
            version=VersionReference.parse(version),
            space=space,
            signature=signature,
            request=EmbedRequest(**request),
            team="core-team",
            now=bench.clock(),
        )


def params(bench: Any, job: Job) -> EmbedPlan:
    with bench.workplace.store.read() as session:
        return EmbedPlan.from_json(session.get_one(JobRow, job.id).params)


def ranges(bench: Any, job: Job) -> list[tuple[str | None, str | None, int]]:
    with bench.workplace.store.read() as session:
        rows = [session.get_one(PartitionRow, f"{job.id}/0/{number}") for number in range(3)]
        return [(row.params["start"], row.params["end"], row.units) for row in rows]


@pytest.fixture
def catalogue(bench: Any) -> None:
    with bench.workplace.store.write() as session:
        items.upsert(session, [Item(key=key) for key in "abcdef"], now=bench.clock())


@pytest.mark.usefixtures("catalogue")
def test_the_catalogue_is_cut_into_ranges_without_a_gap(bench: Any) -> None:
    job = plan(bench, partitions=3)
    assert (job.kind, job.subject, job.team) == ("embed", "core@1/item", "core-team")
    assert [(stage.stage, stage.total) for stage in job.progress] == [
        ("embed", 6),
        ("merge", 6),
        ("assemble", 6),
        ("publish", 6),
    ]
    assert ranges(bench, job) == [(None, "c", 2), ("c", "e", 2), ("e", None, 2)]


def test_only_users_with_an_event_before_as_of_are_embedded(bench: Any, clock: Any) -> None:
    yesterday = clock() - timedelta(days=1)
    sent = [
        Event(
            user=user, item="a", action="like", surface="feed", event_time=yesterday + timedelta(hours=hour)
        )
        for user, hour in [("anna", 1), ("ben", 2), ("carl", 3)]
    ]
    with bench.workplace.store.write() as session:
        accepted = events.ingest(session, EventColumns.from_wire(sent), now=clock())
    job = plan(bench, "user", USER, as_of=yesterday + timedelta(hours=3))
    assert job.progress[0].total == 2
    assert params(bench, job).event_sequence == accepted.sequence
    assert params(bench, job).as_of == yesterday + timedelta(hours=3)


@pytest.mark.usefixtures("catalogue")
def test_the_plan_remembers_how_far_the_writes_were(bench: Any) -> None:
    first = plan(bench)
    answer = Writes(bench.workplace.store, bench.workplace.objects).upsert(
        foundation="core",
        version=1,
        space="item",
        keys=["a"],
        vectors=np.ones((1, 2), np.float32),
        now=bench.clock(),
    )
    second = plan(bench, index=IndexSpecification(kind="hnsw", recall_target=0.99))
    assert params(bench, first).covers_sequence == 0
    assert params(bench, second).covers_sequence == answer.sequence
    assert params(bench, second).index == IndexSpecification(kind="hnsw", recall_target=0.99)


@pytest.mark.usefixtures("catalogue")
def test_the_same_idempotency_key_is_the_same_job(bench: Any) -> None:
    assert plan(bench, idempotency_key="monday").id == plan(bench, idempotency_key="monday").id
    assert plan(bench).id != plan(bench).id


@pytest.mark.usefixtures("catalogue")
def test_a_space_named_after_its_entity_needs_no_entity_in_its_signature(bench: Any) -> None:
    assert params(bench, plan(bench, "item", SpaceSignature(dim=2))).entity == "item"


@pytest.mark.parametrize(
    ("space", "signature", "version", "reason"),
    [
        ("tae", SpaceSignature(dim=2), "core@1", "made per request"),
        ("item", ITEM, "core@production", "is an alias"),
    ],
)
def test_what_cannot_be_embedded_is_malformed(
    bench: Any, space: str, signature: SpaceSignature, version: str, reason: str
) -> None:
    with pytest.raises(InvalidRequest, match=reason):
        plan(bench, space, signature, version)


def test_a_time_in_the_future_is_refused(bench: Any) -> None:
    with pytest.raises(InvalidRequest, match="lies in the future"):
        plan(bench, as_of=bench.clock() + timedelta(seconds=1))


@pytest.mark.parametrize(
    ("signature", "reason"),
    [(ITEM, "There are no items to embed"), (USER, "No user has an event before")],
)
def test_nothing_to_embed_is_a_conflict_that_says_what_to_send(
    bench: Any, signature: SpaceSignature, reason: str
) -> None:
    with pytest.raises(Conflict, match=reason):
        plan(bench, signature=signature)


@pytest.mark.usefixtures("catalogue")
def test_a_space_of_another_shape_is_refused(bench: Any) -> None:
    plan(bench)
    with pytest.raises(AlreadyExists):
        plan(bench, signature=SpaceSignature(dim=3, dtype="float32", entity="item"))
