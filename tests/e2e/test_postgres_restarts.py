"""PostgreSQL is killed, and comes back, in the middle of traffic and in the middle of an embed job."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

import httpx
import numpy as np
import pytest
from tests.engines import Absent, PostgreSQL
from tests.waiting import wait_until

from bedplate import Client
from bedplate.errors import Unavailable

from .cluster import TOKEN, Cluster
from .served_space import DIM, LOOKUP, ROWS, SEARCH, publish

AWAY_SECONDS = 6.0
"""Longer than a token is remembered (2 s), and much longer than an alias goes unasked for (0.25 s)."""
SHORT_LEASES = {"LEASE_SECONDS": "3", "RESEND_SECONDS": "3"}


@pytest.fixture(scope="module")
def postgres() -> Iterator[PostgreSQL]:
    server = PostgreSQL(private=True)
    try:
        server.start()
    except Absent as absent:
        pytest.skip(str(absent))
    yield server
    server.stop()


@pytest.fixture
def cluster(tmp_path: Path, postgres: PostgreSQL) -> Iterator[Cluster]:
    with postgres.database() as registry, postgres.database() as store:
        made = Cluster(tmp_path, registry, store)
        made.prepare()
        yield made
        made.close()


class Readers:
    """Looks up and searches by alias all the while, and remembers what was not answered."""

    def __init__(self, url: str) -> None:
        self.client = http(url)
        self.answers = 0
        self.failures: list[str] = []
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._ended.set()
        self._thread.join()
        self.client.close()

    def _run(self) -> None:
        keys = np.arange(100, dtype="<i8").tobytes()
        raw = {"content-type": "application/octet-stream", "accept": "application/octet-stream"}
        while not self._ended.wait(0.02):
            for answer in (
                self.client.post(LOOKUP, content=keys, headers=raw),
                self.client.post(LOOKUP, json={"keys": [1, 2, 3]}),
                self.client.post(SEARCH, json={"keys": [7], "k": 3}),
            ):
                self.answers += 1
                if answer.status_code != httpx.codes.OK:
                    self.failures.append(answer.text)


def http(url: str) -> httpx.Client:
    headers = {"authorization": f"Bearer {TOKEN}"}
    return httpx.Client(base_url=url, headers=headers, trust_env=False, timeout=60)


def write(client: httpx.Client) -> httpx.Response:
    row = {"keys": [ROWS + 1], "vectors": [[0.5] * DIM]}
    return client.post("/v1/spaces/core@1/item/upsert", json=row)


@pytest.mark.timeout(900)
def test_while_the_database_is_away_lookups_go_on_and_the_rest_says_when_to_come_again(
    cluster: Cluster, postgres: PostgreSQL
) -> None:
    api = cluster.start_api("api")
    api.wait_until_ready()
    with cluster.client(api.url) as client:
        publish(cluster, client)
    with http(api.url) as client:
        assert write(client).status_code == httpx.codes.OK
        wait_until(lambda: client.post(LOOKUP, json={"keys": [1]}).status_code == 200, "it is served")
        with Readers(api.url) as reading:
            wait_until(lambda: reading.answers > 20, "readers read")
            with postgres.away():
                before = reading.answers
                all_else_says_when_to_come_again(client)
                assert reading.answers > before + 20
                assert reading.failures == []
            wait_until(lambda: client.get("/v1/teams").status_code == 200, "the registry answers by itself")
            wait_until(lambda: write(client).status_code == 200, "the store answers by itself")
            after = reading.answers
            wait_until(lambda: reading.answers > after + 20, "readers read on")
    assert reading.failures == []


def all_else_says_when_to_come_again(client: httpx.Client) -> None:
    away_at = time.monotonic()
    while time.monotonic() < away_at + AWAY_SECONDS:
        for answer in (client.get("/v1/teams"), client.get("/v1/foundations"), write(client)):
            assert answer.status_code == 503, answer.text
            assert answer.headers["content-type"] == "application/problem+json"
            assert int(answer.headers["retry-after"]) >= 1
            assert answer.json()["code"] == "unavailable"
            assert "psycopg" not in answer.text
        assert client.get("/readyz").status_code == 200, "who only reads must still find it"


@pytest.mark.timeout(900)
def test_an_embed_job_ends_right(
    cluster: Cluster,
    postgres: PostgreSQL,
    world: Any,
    embed: Callable[..., str],
    wait_for_middle: Callable[..., Any],
    snapshot_digest: Callable[..., str],
) -> None:
    api = cluster.start_api("api", **SHORT_LEASES)
    worker = cluster.start("worker", "bedplate_workers", **SHORT_LEASES)
    reconciler = cluster.start("reconciler", "bedplate_workers.reconciler", **SHORT_LEASES)
    api.wait_until_ready()
    with cluster.client(api.url) as client:
        world.populate(client)
        job = embed(client, "core@1/item")
        wait_for_middle(client, job)
        with postgres.away():
            time.sleep(1.0)  # long enough for every process to meet it
        wait_until(lambda: _answers(client), "the API answers by itself")
        disturbed = snapshot_digest(client, job, "core@1/item")
        ended = client.jobs.get(job)
        assert ended.state == "succeeded"
        assert [(stage.done, stage.total) for stage in ended.progress if stage.done != stage.total] == []
        assert client.spaces.lookup("core@1/item", world.keys).found.all()
        assert client.spaces.get("core@1/item").rows == len(world.keys)
        undisturbed = snapshot_digest(client, embed(client, "core@1/item"), "core@1/item")
        assert disturbed == undisturbed
    for process in (worker, reconciler):
        assert process.running.poll() is None, "nobody had to be started again"
        assert process.stop(60) == 0, process.log.read_text()[-4000:]


def _answers(client: Client) -> bool:
    try:
        client.teams.list()
    except Unavailable:
        return False
    return True
