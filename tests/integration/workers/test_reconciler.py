"""What the reconciler's chores do to the ledger, and what the metrics say about it."""

from __future__ import annotations

import urllib.request
from functools import partial
from typing import Any

import numpy as np
from prometheus_client import CollectorRegistry
from tests.engines.messages import take_all

from bedplate.references import VersionReference
from bedplate.wire.registry import AliasMove, SpaceSignature, Version
from bedplate.wire.store import EmbedRequest, Item
from bedplate_registry import aliases
from bedplate_store import (
    compaction,
    embedding_jobs,
    items,
    jobs,
    leases,
    reader_processes,
    snapshots,
    spaces,
)
from bedplate_store.reader_processes import OpenSpace, ReaderProcess
from bedplate_store.spaces import SpaceKey
from bedplate_store.writes import Writes
from bedplate_workers.app import create_app, send_task
from bedplate_workers.broker import check_queues
from bedplate_workers.database_metrics import AliasCollector, SpaceCollector, database_collectors
from bedplate_workers.handlers import result
from bedplate_workers.job_kinds import HANDLERS
from bedplate_workers.maintenance import COLLECT_SECONDS, plan_compactions, plan_upkeep
from bedplate_workers.metrics import ReconcilerMetrics, serve_metrics
from bedplate_workers.queues import Backlog, backlogs
from bedplate_workers.reconciler import drain_outbox, reconcile


def samples(registry: CollectorRegistry) -> dict[tuple[str, ...], float]:
    """Value by name and labels."""
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in registry.collect()
        for sample in family.samples
    }


def test_messages_go_to_the_queue_of_their_jobs_kind(bench: Any, clock: Any, broker_url: str) -> None:
    counting, embedding = bench.job(partitions=1), bench.job(kind="embed", partitions=1)
    app = create_app(broker_url)
    check_queues(app)
    assert drain_outbox(bench.workplace.store, partial(send_task, app), clock) == 2
    assert take_all(app, "cpu") == [f"{counting.id}/0/0"]
    assert take_all(app, "gpu") == [f"{embedding.id}/0/0"]
    assert drain_outbox(bench.workplace.store, partial(send_task, app), clock) == 0
    app.close()


def test_more_messages_than_fit_a_round_are_all_sent(bench: Any, clock: Any) -> None:
    bench.job(partitions=250)
    sent: list[Any] = []
    assert drain_outbox(bench.workplace.store, lambda *message: sent.append(message), clock) == 250
    assert len(sent) == 250


def test_the_partition_of_a_dead_worker_is_done_by_another(bench: Any, clock: Any) -> None:
    job = bench.job(partitions=1)
    (partition,) = bench.messages()
    assert leases.claim(bench.workplace.store, partition, "dies now", 30, clock()) is not None
    clock.advance(31)
    reconcile(bench.workplace.store, clock, 30)
    handlers = {
        ("count", "count"): lambda *_: result({"number": 1}),
        ("count", "sum"): lambda *_: result({"sum": 1}),
    }
    bench.work_all(bench.worker(handlers))
    assert bench.state(job).state == "succeeded"
    assert bench.state(job).attempts == 3


def test_a_lost_message_is_sent_again(bench: Any, clock: Any) -> None:
    bench.job(partitions=1)
    lost = bench.messages()
    reconcile(bench.workplace.store, clock, 30)
    assert bench.messages() == []
    clock.advance(31)
    reconcile(bench.workplace.store, clock, 30)
    assert bench.messages() == lost


def test_backlogs_count_what_waits_and_for_how_long(bench: Any, clock: Any) -> None:
    bench.job(partitions=3)
    clock.advance(20)
    bench.job(kind="embed", partitions=2)
    clock.advance(5)
    partition = bench.messages()[0]
    leases.claim(bench.workplace.store, partition, "worker", 30, clock())
    with bench.workplace.store.read() as session:
        assert backlogs(session, clock()) == {"cpu": Backlog(2, 25.0, 1), "gpu": Backlog(2, 5.0, 0)}


def test_the_metrics_port_tells_depth_and_age(bench: Any, clock: Any) -> None:
    bench.job(partitions=3)
    clock.advance(20)
    place, metrics = bench.workplace, ReconcilerMetrics()
    metrics.expect(["drain the outbox"])
    metrics.chore("reconcile the ledger", False)
    collectors = database_collectors(place.registry, place.store, clock)
    server = serve_metrics(metrics.registry, collectors, host="127.0.0.1", port=0)
    with urllib.request.urlopen(f"http://127.0.0.1:{server.server_port}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    server.shutdown()
    server.server_close()
    assert 'bedplate_queue_due_partitions{queue="cpu"} 3.0' in text
    assert 'bedplate_queue_oldest_due_seconds{queue="cpu"} 20.0' in text
    assert 'bedplate_queue_due_partitions{queue="gpu"} 0.0' in text
    assert 'bedplate_reconciler_chores_total{chore="drain the outbox",result="failed"} 0.0' in text
    assert 'bedplate_reconciler_chores_total{chore="reconcile the ledger",result="failed"} 1.0' in text


def test_a_collection_is_planned_once_in_a_while(bench: Any, clock: Any) -> None:
    first, scrub = plan_upkeep(bench.workplace.store, clock())
    again, _ = plan_upkeep(bench.workplace.store, clock())
    clock.advance(COLLECT_SECONDS)
    later, _ = plan_upkeep(bench.workplace.store, clock())
    assert (first.kind, scrub.kind) == ("collect", "scrub")
    assert again.id == first.id != later.id


def test_a_space_with_many_writes_is_compacted_once_at_a_time(bench: Any, clock: Any) -> None:
    store = bench.workplace.store
    signature = SpaceSignature(dim=2, dtype="float32", key_type="int64")
    key = {"foundation": "core", "version": 1, "space": "item"}
    with store.write() as session:
        spaces.ensure_space(session, **key, signature=signature, team="core", now=clock())
    keys = np.arange(compaction.PENDING_ROWS_MIN)
    vectors = np.ones((len(keys), 2), np.float32)
    Writes(store, bench.workplace.objects).upsert(**key, keys=keys, vectors=vectors, now=clock())
    (compact,) = plan_compactions(store, clock())
    assert (compact.kind, compact.subject) == ("compact", "core@1/item")
    assert plan_compactions(store, clock()) == []
    with store.write() as session:
        jobs.cancel(session, compact.id, clock())
    Writes(store, bench.workplace.objects).upsert(**key, keys=keys[:1], vectors=vectors[:1], now=clock())
    assert plan_compactions(store, clock())[0].id != compact.id


def test_the_metrics_port_tells_what_is_pending_and_how_far_readers_are_behind(
    bench: Any, clock: Any
) -> None:
    store, space = bench.workplace.store, SpaceKey("core", 1, "item")
    signature = SpaceSignature(dim=2, dtype="float32", key_type="int64")
    writes = Writes(store, bench.workplace.objects)
    with store.write() as session:
        spaces.ensure_space(session, **space._asdict(), signature=signature, team="core", now=clock())
    for number in range(3):
        writes.upsert(**space._asdict(), keys=np.arange(4), vectors=np.ones((4, 2), np.float32), now=clock())
        if number == 0:
            opened = {space: OpenSpace(snapshot=0, sequence=1, in_use=True)}
            reader = ReaderProcess("1", "api", "host/7", "http://host", True, opened)
            with store.write() as session:
                reader_processes.announce(session, reader, started_at=clock(), now=clock())
    clock.advance(3)
    registry = CollectorRegistry(auto_describe=False)
    registry.register(SpaceCollector(store, clock))
    assert samples(registry) == {
        ("bedplate_space_pending_rows", "core@1/item"): 12,
        ("bedplate_space_oldest_pending_seconds", "core@1/item"): 3,
        ("bedplate_space_snapshot", "core@1/item"): 0,
        ("bedplate_space_snapshot_rows", "core@1/item"): 0,
        ("bedplate_reader_snapshot", "core@1/item", "host/7"): 0,
        ("bedplate_reader_behind_writes", "core@1/item", "host/7"): 2,
        ("bedplate_reader_told_seconds", "host/7"): 3,
    }


def test_the_metrics_port_tells_what_is_published_behind_which_alias(
    bench: Any, clock: Any, foundation: Version
) -> None:
    place = bench.workplace
    with place.store.write() as session:
        items.upsert(session, [Item(key=f"item-{number:02d}") for number in range(40)], now=clock())
        embedding_jobs.plan_embed(
            session,
            version=VersionReference("core", "1"),
            space="item",
            signature=SpaceSignature(dim=8, dtype="float32", entity="item"),
            request=EmbedRequest(),
            team="core-team",
            now=clock(),
        )
    bench.work_all(bench.worker(HANDLERS))
    with place.registry.write() as session:
        aliases.move(session, "core", "production", AliasMove(version=1), "me", clock())
    with place.store.read() as session:
        (snapshot,) = snapshots.list_snapshots(session, "core", 1, "item")
    registry = CollectorRegistry(auto_describe=False)
    registry.register(SpaceCollector(place.store, clock))
    registry.register(AliasCollector(place.registry, place.store))
    told = samples(registry)
    published = snapshot.published_at.timestamp()
    assert told["bedplate_space_snapshot_timestamp_seconds", "core@1/item"] == published
    assert told["bedplate_space_snapshot_rows", "core@1/item"] == 40
    assert told["bedplate_space_recall_ratio", "core@1/item", "10"] == 1.0
    assert told["bedplate_space_oldest_pending_seconds", "core@1/item"] == 0
    assert told["bedplate_alias_version", "core@production"] == 1
    assert told["bedplate_alias_snapshot_timestamp_seconds", "core@production", "item"] == published


def test_a_scrape_while_the_database_is_away_tells_what_the_process_counts(bench: Any, clock: Any) -> None:
    place, metrics = bench.workplace, ReconcilerMetrics()
    metrics.chore("reconcile the ledger", False)
    for collector in database_collectors(place.registry, place.store, clock):
        metrics.registry.register(collector)
    assert ("bedplate_queue_due_partitions", "cpu") in samples(metrics.registry)
    with place.store.engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE job_partitions RENAME TO away")
        connection.exec_driver_sql("ALTER TABLE spaces RENAME TO spaces_away")
    told = samples(metrics.registry)
    assert told["bedplate_reconciler_chores_total", "reconcile the ledger", "failed"] == 1
    assert not [name for name, *_ in told if name.startswith(("bedplate_queue_", "bedplate_space_"))]
