"""A store node is replaced under load: its successor has the same name, and no request misses a shard."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

import numpy as np
import pytest
from tests.engines.engine import free_port
from tests.waiting import wait_until

from bedplate import Client
from bedplate.wire.registry import SpaceSignature
from bedplate.wire.shards import SHARDS_MAX
from bedplate.wire.store import IndexSpecification
from bedplate_store import reader_processes, snapshots, spaces
from bedplate_store.objects import open_object_store
from bedplate_store.segments import write_segment
from bedplate_store.shard_assignments import assign_evenly
from bedplate_store.spaces import SpaceKey

from .cluster import PATIENCE_SECONDS, TOKEN, Cluster, Process
from .test_rolling_update import LOAD_SECONDS, PACE_SECONDS, shutdown

ROWS, DIM, SHARDS = 6_000, 16, 4
NODES = ("node-1", "node-2")
SPACE = SpaceKey("core", 1, "item")
VECTORS = np.random.default_rng(3).standard_normal((ROWS, DIM), np.float32)


class Load:
    """Lookups and searches that need every shard; what is not answered whole is remembered."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.answers = 0
        self.failures: list[str] = []
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(seed,)) for seed in range(2)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(PATIENCE_SECONDS)

    def _run(self, seed: int) -> None:
        random = np.random.default_rng(seed)
        with Client(self.url, TOKEN) as client:
            while not self._stop.wait(PACE_SECONDS):
                keys = random.integers(0, ROWS, 50)
                try:
                    found = client.spaces.lookup(str(SPACE), keys)
                    if not (found.vectors == VECTORS[keys]).all():
                        self.failures.append("a wrong vector")
                    hits = client.spaces.search(str(SPACE), VECTORS[keys[:1]], k=3)
                    if hits.shards != (SHARDS, SHARDS):
                        self.failures.append(f"hits of {hits.shards} shards")
                except Exception as error:  # noqa: BLE001  # whatever it is, it is told
                    self.failures.append(repr(error))
                self.answers += 1


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    made = Cluster(tmp_path)
    made.prepare()
    yield made
    made.close()


def publish(cluster: Cluster) -> None:
    database, objects = cluster.store(), open_object_store(cluster.objects_url)
    now = datetime.now(UTC)
    signature = SpaceSignature(dim=DIM, dtype="float32", key_type="int64")
    with database.write() as session:
        spaces.ensure_space(session, **SPACE._asdict(), signature=signature, team="foundation", now=now)
        assign_evenly(session, NODES, SHARDS_MAX, now, moved_by="tests")
    segment = write_segment(objects, keys=np.arange(ROWS), vectors=VECTORS, dtype="float32", key_type="int64")
    wanted = IndexSpecification(kind="ivf", recall_target=0.99, shards=SHARDS)
    building = cluster.folder / "building"
    prepared = snapshots.prepare(database, objects, building, SPACE, [segment.digest], wanted)
    with database.write() as session:
        snapshots.publish(session, prepared, objects=objects, job=None, now=now)
    database.close()


def start_node(cluster: Cluster, process: str, node: str, drain_seconds: float) -> Process:
    port = free_port()
    started = cluster.start(
        process,
        "bedplate_services.shards.node",
        STORE_NODE=node,
        STORE_NODE_PORT=str(port),
        SHARD_SECRET="shared",
        DRAIN_SECONDS=str(drain_seconds),
    )
    started.url = f"http://127.0.0.1:{port}"
    return started


@pytest.mark.timeout(900)
def test_a_store_node_is_replaced_under_load_and_no_request_misses_a_shard(cluster: Cluster) -> None:
    settings = shutdown("store")
    publish(cluster)
    old, other = [start_node(cluster, name, name, settings["drainSeconds"]) for name in NODES]
    # A busy machine answers late; here only what is not answered counts.
    api = cluster.start_api("api", SHARD_SECRET="shared", SHARD_DEADLINE_SECONDS="60")
    for process in (old, other, api):
        process.wait_until_ready()

    def asked(url: str) -> bool:
        database = cluster.store()
        with database.read() as session:
            readers = reader_processes.list_readers(session, SPACE, datetime.now(UTC))
        database.close()
        return url in {reader.url for reader in readers}

    assert asked(old.url)
    with Load(api.url) as load:
        wait_until(lambda: load.answers > 5, api.log.read_text)
        new = start_node(cluster, "successor", NODES[0], settings["drainSeconds"])
        new.wait_until_ready()
        assert asked(new.url)
        time.sleep(LOAD_SECONDS)
        time.sleep(settings["preStopSeconds"])
        before = load.answers
        assert old.stop(settings["gracePeriodSeconds"] - settings["preStopSeconds"]) == 0
        assert load.answers > before
        assert not asked(old.url)
        time.sleep(LOAD_SECONDS)
    assert load.failures == []
    assert load.answers > 50
