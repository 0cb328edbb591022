"""Embed jobs through the real model, store and registry, without processes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bedplate.references import VersionReference
from bedplate.wire.registry import SpaceSignature, Version
from bedplate.wire.store import EmbedRequest, Event, IndexSpecification, Item, Job
from bedplate_modeling.runtime import FoundationRuntime
from bedplate_store import (
    collection,
    compaction,
    embedding_jobs,
    events,
    items,
    jobs,
    leases,
    reconciler,
    spaces,
)
from bedplate_store.event_columns import EventColumns
from bedplate_store.readers import SpaceReaders
from bedplate_store.spaces import SpaceKey
from bedplate_store.writes import Writes
from bedplate_workers.collection import unpublished_digests
from bedplate_workers.job_kinds import HANDLERS
from bedplate_workers.maintenance import plan_upkeep

SPACE = SpaceKey("core", 1, "item")
KEYS = [f"item-{number:02d}" for number in range(40)]


def plan(
    bench: Any,
    space: str,
    partitions: int = 4,
    index: IndexSpecification = IndexSpecification(),  # noqa: B008  # frozen
    **signature: Any,
) -> Job:
    """An embed job of ``core@1``."""
    with bench.workplace.store.write() as session:
        return embedding_jobs.plan_embed(
            session,
            version=VersionReference("core", "1"),
            space=space,
            signature=SpaceSignature(**{"dim": 8, "dtype": "float32", **signature}),
            request=EmbedRequest(partitions=partitions, index=index),
            team="core-team",
            now=bench.clock(),
        )


def put_items(bench: Any, keys: list[str]) -> None:
    with bench.workplace.store.write() as session:
        items.upsert(session, [Item(key=key, features={"genre": 1}) for key in keys], now=bench.clock())


def reader(bench: Any, tmp_path: Path, space: str = "item") -> Any:
    return SpaceReaders(bench.workplace.store, bench.workplace.objects, tmp_path / "read").get(
        "core", 1, space
    )


def finished(bench: Any, job: Job) -> Job:
    bench.work_all(bench.worker(HANDLERS))
    state = bench.state(job)
    assert state.state == "succeeded", state.error
    return state


@pytest.fixture
def runtime(foundation: Version, tmp_path: Path) -> FoundationRuntime:
    return FoundationRuntime.load(tmp_path / "core-1")


def test_items_are_embedded_by_the_published_model(
    bench: Any, runtime: FoundationRuntime, tmp_path: Path
) -> None:
    put_items(bench, [*KEYS, "an-item-the-model-never-saw"])
    job = finished(bench, plan(bench, "item"))
    assert job.result is not None
    assert (job.result["rows"], job.result["job"]) == (41, job.id)
    found = reader(bench, tmp_path).lookup([*KEYS, "an-item-the-model-never-saw"])
    assert found.found.all()
    np.testing.assert_allclose(found.vectors[:-1], runtime.embed_items(KEYS), atol=1e-6)
    np.testing.assert_allclose(found.vectors[-1:], runtime.embed_items(["?"], {"?": {"genre": 1}}), atol=1e-6)


def send_events(bench: Any, user: str, *minutes: int, item: str = "item-07") -> None:
    """Events of yesterday, at these minutes."""
    yesterday = bench.clock() - timedelta(days=1)
    sent = [
        Event(
            user=user,
            item=item,
            action="like",
            surface="feed",
            event_time=yesterday + timedelta(minutes=minute),
        )
        for minute in minutes
    ]
    with bench.workplace.store.write() as session:
        events.ingest(session, EventColumns.from_wire(sent), now=bench.clock(), allow_late=True)


@pytest.mark.usefixtures("foundation")
def test_users_see_what_was_accepted_before_the_job_and_nothing_later(bench: Any, tmp_path: Path) -> None:
    send_events(bench, "anna", 1, 2, 3)
    send_events(bench, "ben", 1)
    job = plan(bench, "user", partitions=1)
    send_events(bench, "anna", 2, item="item-30")
    finished(bench, job)
    before = reader(bench, tmp_path, "user").lookup(["anna", "ben", "carl"])
    assert before.found.tolist() == [True, True, False]
    assert np.linalg.norm(before.vectors[1]) == pytest.approx(1.0, abs=1e-5)
    finished(bench, plan(bench, "user", partitions=1))
    after = reader(bench, tmp_path, "user").lookup(["anna"])
    assert not np.allclose(before.vectors[0], after.vectors[0]), "the second job sees the late event"


@pytest.mark.usefixtures("foundation")
def test_the_snapshot_does_not_tell_how_the_work_was_cut_or_repeated(bench: Any) -> None:
    """Another number of partitions, and a partition done by two workers: the same bytes."""
    put_items(bench, KEYS)
    first = finished(bench, plan(bench, "item", partitions=1))
    job = plan(bench, "item", partitions=4)
    frozen = bench.messages()[0]
    assert leases.claim(bench.workplace.store, frozen, "froze", 30, bench.clock()) is not None
    bench.clock.advance(31)
    assert bench.worker(HANDLERS).work(frozen) == "done"
    reconciler.reconcile(bench.workplace.store, bench.clock(), 1)
    second = finished(bench, job)
    assert first.result is not None
    assert second.result is not None
    assert second.result["snapshot"] == first.result["snapshot"] + 1
    assert second.result["digest"] == first.result["digest"]


@pytest.mark.usefixtures("foundation")
def test_an_upsert_made_meanwhile_wins_over_the_embedded_vector(bench: Any, tmp_path: Path) -> None:
    put_items(bench, KEYS)
    job = plan(bench, "item")
    upsert(bench, KEYS[3])
    finished(bench, job)
    found = reader(bench, tmp_path).lookup(KEYS[3:5])
    assert found.vectors[0].tolist() == [9.0] * 8
    assert found.vectors[1].tolist() != [9.0] * 8


def upsert(bench: Any, key: str) -> None:
    place = bench.workplace
    vectors = np.full((1, 8), 9.0, np.float32)
    Writes(place.store, place.objects).upsert(
        **SPACE._asdict(), keys=[key], vectors=vectors, now=bench.clock()
    )


@pytest.mark.usefixtures("foundation")
def test_a_snapshot_published_meanwhile_is_folded_in(bench: Any, tmp_path: Path) -> None:
    """A compaction lands between the stages "assemble" and "publish"."""
    put_items(bench, KEYS)
    job = plan(bench, "item", partitions=1)
    worker = bench.worker(HANDLERS)
    for stage in ("embed", "merge", "assemble"):
        (partition,) = bench.messages()
        assert worker.work(partition) == "done", stage
    upsert(bench, "by-hand")
    place = bench.workplace
    compaction.compact(
        place.store,
        place.objects,
        place.cache_dir,
        **SPACE._asdict(),
        specification=None,
        job=None,
        now=bench.clock(),
    )
    assert finished(bench, job).attempts == 4, "no attempt failed"
    assert reader(bench, tmp_path).lookup([*KEYS, "by-hand"]).found.all()


def upsert_many(bench: Any, rows: int) -> None:
    """So many that they can train inverted lists."""
    place, vectors = bench.workplace, np.random.default_rng(2).standard_normal((rows, 8)).astype(np.float32)
    Writes(place.store, place.objects).upsert(
        **SPACE._asdict(),
        keys=[f"by-hand-{number}" for number in range(rows)],
        vectors=vectors,
        now=bench.clock(),
    )


@pytest.fixture
def filled(bench: Any, foundation: Version) -> None:
    """A published space and writes above it: together enough rows for inverted lists."""
    put_items(bench, KEYS)
    finished(bench, plan(bench, "item"))
    upsert_many(bench, 1_500)


LISTS = IndexSpecification(kind="ivf", recall_target=0.9)


@pytest.mark.usefixtures("filled")
def test_an_index_is_trained_once_and_added_to_in_parts(bench: Any) -> None:
    job = finished(bench, plan(bench, "item", partitions=6, index=LISTS))
    stages = {stage.stage: (stage.done, stage.total) for stage in job.progress}
    assert list(stages) == ["embed", "merge", "train", "add", "assemble", "publish"]
    assert stages["embed"] == (40, 40)
    assert stages["add"] == stages["merge"] == stages["assemble"] == (1_540, 1_540)
    assert job.attempts == 6 + 1 + 1 + 6 + 1 + 1
    assert job.result is not None
    assert (job.result["rows"], job.result["index_kind"]) == (1_540, "ivf")
    assert job.result["recall_at_10"] >= 0.9


@pytest.mark.usefixtures("filled")
def test_the_index_does_not_tell_how_its_parts_were_made(bench: Any) -> None:
    """In reverse, with one part done by a worker that took over a lost lease: the bytes of one part alone."""
    first = finished(bench, plan(bench, "item", partitions=1, index=LISTS))
    job = plan(bench, "item", partitions=5, index=LISTS)
    worker = bench.worker(HANDLERS)
    for stage, partitions in (("embed", 5), ("merge", 1), ("train", 1)):
        due = bench.messages()
        assert len(due) == partitions, stage
        assert [worker.work(partition) for partition in due] == ["done"] * partitions
    due = bench.messages()
    assert leases.claim(bench.workplace.store, due[2], "killed", 30, bench.clock()) is not None
    assert [bench.worker(HANDLERS).work(partition) for partition in reversed(due)].count("done") == 4
    bench.clock.advance(31)
    assert worker.work(due[2]) == "done"
    second = finished(bench, job)
    assert first.result is not None
    assert second.result is not None
    assert second.result["digest"] == first.result["digest"]


@pytest.mark.usefixtures("filled")
def test_a_base_that_shrinks_below_what_lists_need_is_scanned(bench: Any) -> None:
    """It was planned for lists, in parts; rows are deleted and compacted away before it is merged."""
    job = plan(bench, "item", partitions=3, index=LISTS)
    Writes(bench.workplace.store, bench.workplace.objects).delete(
        **SPACE._asdict(),
        keys=[f"by-hand-{number}" for number in range(1_500)],
        now=bench.clock(),
    )
    worker = bench.worker(HANDLERS)
    for partition in bench.messages():
        worker.work(partition)
    place = bench.workplace
    compaction.compact(
        place.store,
        place.objects,
        place.cache_dir,
        **SPACE._asdict(),
        specification=None,
        job=None,
        now=bench.clock(),
    )
    state = finished(bench, job)
    assert state.result is not None
    assert (state.result["rows"], state.result["index_kind"]) == (40, "flat")


@pytest.mark.usefixtures("filled")
def test_nothing_of_an_unfinished_job_is_collected(bench: Any) -> None:
    job = plan(bench, "item", partitions=2, index=LISTS)
    worker = bench.worker(HANDLERS)
    for _stage in ("embed", "merge", "train", "add", "assemble"):
        for partition in bench.messages():
            worker.work(partition)
    place = bench.workplace
    with place.store.read() as session:
        keep = unpublished_digests(session)
    before = {key for key in place.objects.list("") if any(digest in key for digest in keep)}
    assert len(keep) == 7, "two embedded partitions, the base, the trained index, two parts, the index"
    later = datetime.now(UTC) + timedelta(days=1)
    collection.collect(place.store, place.objects, now=later, grace=timedelta(days=1), keep=keep)
    assert before <= set(place.objects.list(""))
    assert finished(bench, job).state == "succeeded"


@pytest.mark.usefixtures("foundation")
def test_a_collection_job_removes_what_is_left_over(bench: Any, clock: Any) -> None:
    put_items(bench, KEYS)
    finished(bench, plan(bench, "item", partitions=2))
    segments = set(bench.workplace.objects.list("segments/"))
    clock.time = datetime.now(UTC) + timedelta(days=1)
    plan_upkeep(bench.workplace.store, clock())
    bench.work_all(bench.worker(HANDLERS))
    left = set(bench.workplace.objects.list("segments/"))
    assert left < segments, "the partitions' segments are gone, the published one stays"
    assert left


@pytest.mark.usefixtures("foundation")
def test_writes_are_folded_by_a_compaction_job(bench: Any, tmp_path: Path) -> None:
    put_items(bench, KEYS)
    finished(bench, plan(bench, "item"))
    upsert(bench, "by-hand")
    with bench.workplace.store.write() as session:
        job = jobs.create(
            session,
            kind="compact",
            subject=str(SPACE),
            team="core-team",
            params=SPACE._asdict(),
            stages=[jobs.Stage("compact", [jobs.PartitionSpec({}, 41)])],
            now=bench.clock(),
        )
    result = finished(bench, job).result
    assert result is not None
    assert (result["rows"], result["index_kind"], result["recall_at_10"]) == (41, "flat", 1.0)
    with bench.workplace.store.read() as session:
        assert spaces.get_space(session, *SPACE).pending_rows == 0
    assert reader(bench, tmp_path).lookup(["by-hand"]).found.all()


@pytest.mark.usefixtures("foundation")
def test_keys_that_are_no_integers_fail_an_int64_space_with_advice(bench: Any) -> None:
    put_items(bench, ["1", "two"])
    job = plan(bench, "item", partitions=1, key_type="int64")
    bench.work_all(bench.worker(HANDLERS))
    state = bench.state(job)
    assert state.state == "failed"
    assert "no 64-bit integer" in (state.error or "")
    assert "string keys" in (state.error or "")


@pytest.mark.usefixtures("foundation")
def test_integer_keys_fill_an_int64_space(bench: Any, tmp_path: Path) -> None:
    put_items(bench, ["10", "9", "-3"])
    finished(bench, plan(bench, "item", partitions=2, key_type="int64"))
    found = reader(bench, tmp_path).lookup(np.array([-3, 9, 10, 11]))
    assert found.found.tolist() == [True, True, True, False]


@pytest.mark.usefixtures("foundation")
@pytest.mark.parametrize("dtype", ["int8", "int4"])
def test_a_compressed_space_says_what_it_cost(bench: Any, tmp_path: Path, dtype: Any) -> None:
    put_items(bench, KEYS)
    job = plan(bench, "item", dtype=dtype)
    state = finished(bench, job)
    assert state.result is not None
    cost = state.result["compression"]
    assert cost["rows"] == len(KEYS)
    assert 0 < cost["relative_error_mean"] < (0.02 if dtype == "int8" else 0.2)
    assert cost["relative_error_mean"] <= cost["relative_error_p99"]
    assert 0.5 < cost["recall_at_10"] <= 1
    with bench.workplace.store.read() as session:
        samples = [each["sample"] for each in jobs.results(session, job.id, "embed")]
    assert all(bench.workplace.objects.list(f"segments/{sample}/") for sample in samples)
    # Compaction measures nothing anew and forgets nothing.
    Writes(bench.workplace.store, bench.workplace.objects).upsert(
        **SPACE._asdict(), keys=["by-hand"], vectors=np.ones((1, 8)), now=bench.clock()
    )
    compacted = compaction.compact(
        bench.workplace.store,
        bench.workplace.objects,
        tmp_path / "compacting",
        **SPACE._asdict(),
        specification=None,
        job=None,
        now=bench.clock(),
    )
    assert compacted.compression is not None
    assert compacted.compression.model_dump() == cost
