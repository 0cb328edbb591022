"""What may befall servers and workers in the middle of an embed job: it ends by itself, whole, once.

Nobody can tell from the snapshot: it is, byte for byte, that of a job that nothing befell.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import pytest
from sqlalchemy import select
from tests.engines import S3, Absent, PostgreSQL, RabbitMQ, Redis
from tests.engines.environments import on_servers
from tests.engines.tcp_proxy import TcpProxy
from tests.waiting import PATIENCE_SECONDS, wait_until

from bedplate import Client
from bedplate.errors import Unavailable
from bedplate.wire.store import Snapshot
from bedplate_services.supervisor.platform import Platform
from bedplate_store.database import Database
from bedplate_store.tables.jobs import JobRow, PartitionRow

from .conftest import USERS as USERS_SEEN
from .conftest import populated_platform

PARTITIONS = 30
OUTAGE_SECONDS = 30.0
ITEMS, OTHER_ITEMS, USERS = "core@1/item", "core@2/item", "core@1/user"
# Of a worker that froze within a transaction, whose locks the others need.
TRANSACTIONS_END = {"BEDPLATE_DATABASE_IDLE_IN_TRANSACTION_SECONDS": "40"}


@dataclass
class Scene:
    """A platform with two workers, a database and a broker of its own, and a way to S3 that can be cut."""

    platform: Platform
    database: PostgreSQL
    broker: Redis | RabbitMQ
    way_to_s3: TcpProxy
    ledger: Database
    embed: Callable[..., str]
    wait_for_middle: Callable[..., Any]
    snapshot_digest: Callable[..., str]
    undisturbed: dict[str, Snapshot]
    """What a job published that nothing befell, by space."""

    def begin(self, client: Client, space: str, partitions: int = PARTITIONS) -> str:
        return self.embed(client, space, partitions=partitions)

    def reach_the_middle(self, client: Client, space: str) -> str:
        """A job, some of whose partitions are done."""
        job = self.begin(client, space)
        self.wait_for_middle(client, job)
        return job

    def check(self, client: Client, job: str, space: str) -> None:
        """Every partition is done once, and one snapshot has every row, as if nothing had happened."""
        expected = self.undisturbed[space]
        assert self.snapshot_digest(client, job, space) == expected.digest
        state = client.jobs.get(job)
        assert state.state == "succeeded"
        assert all(stage.done == stage.total for stage in state.progress)
        assert [each.rows for each in client.spaces.snapshots(space) if each.job == job] == [expected.rows]


@pytest.fixture(scope="module", params=[Redis, RabbitMQ], ids=["redis", "rabbitmq"])
def scene(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    world: Any,
    s3: S3,
    embed: Callable[..., str],
    wait_for_middle: Callable[..., Any],
    snapshot_digest: Callable[..., str],
) -> Iterator[Scene]:
    server = urlsplit(s3.endpoint)
    with ExitStack() as stack:
        try:
            postgresql = stack.enter_context(PostgreSQL(private=True))
            broker = stack.enter_context(request.param(private=True))
        except Absent as absent:
            pytest.skip(str(absent))
        place = broker.database() if isinstance(broker, Redis) else broker.virtual_host()
        way = stack.enter_context(TcpProxy(str(server.hostname), server.port or 80))
        url, endpoint = stack.enter_context(place), f"http://127.0.0.1:{way.port}"
        environment = stack.enter_context(on_servers(postgresql, s3, url, endpoint))
        folder = tmp_path_factory.mktemp("faults")
        platform = stack.enter_context(
            populated_platform(folder, world, {**environment, **TRANSACTIONS_END}, workers=2)
        )
        ledger = Database(platform.engines.store_database)
        stack.callback(ledger.close)
        made = Scene(
            platform, postgresql, broker, way, ledger, embed, wait_for_middle, snapshot_digest, undisturbed={}
        )
        with Client(platform.client_url, platform.token) as client:
            rows = {ITEMS: len(world.keys), OTHER_ITEMS: len(world.keys), USERS: USERS_SEEN}
            jobs = {space: made.begin(client, space, partitions=2) for space in rows}
            for space, job in jobs.items():
                snapshot_digest(client, job, space)
                (made.undisturbed[space],) = client.spaces.snapshots(space)
        assert {space: each.rows for space, each in made.undisturbed.items()} == rows
        yield made


@pytest.fixture
def client(scene: Scene) -> Iterator[Client]:
    with Client(scene.platform.client_url, scene.platform.token) as made:
        yield made


def test_a_broker_killed_and_emptied_costs_nothing_but_time(scene: Scene, client: Client) -> None:
    """Its messages and queues are gone. A job that is asked for while it is away begins when it is back."""
    job = scene.reach_the_middle(client, ITEMS)
    scene.broker.kill()
    asked_meanwhile = scene.begin(client, OTHER_ITEMS, partitions=2)
    scene.broker.empty()
    scene.broker.restart()
    scene.check(client, job, ITEMS)
    scene.check(client, asked_meanwhile, OTHER_ITEMS)


def test_a_database_killed_and_started_again_costs_nothing_but_time(scene: Scene, client: Client) -> None:
    """Nobody who works on the job has to be started again."""
    job = scene.reach_the_middle(client, ITEMS)
    before = scene.platform.pids()
    with scene.database.away(), pytest.raises(Unavailable):
        client.jobs.get(job)
    wait_until(lambda: answers(client, job))
    scene.check(client, job, ITEMS)
    assert before.items() <= scene.platform.pids().items()


def test_a_killed_worker_costs_nothing_but_time(scene: Scene, client: Client) -> None:
    """It dies with a partition in its hands, which is done again."""
    worker = scene.platform.pids()["worker"]
    job = scene.begin(client, ITEMS)
    held = freeze_with_a_partition(scene.ledger, job, worker)
    os.kill(worker, signal.SIGKILL)
    scene.check(client, job, ITEMS)
    with scene.ledger.read() as session:
        done = session.get_one(PartitionRow, held)
        assert (done.state, done.attempt, done.fencing_token) == ("done", 2, 2)


def test_a_worker_frozen_past_its_lease_comes_too_late(scene: Scene, client: Client) -> None:
    """Another one does its partition and ends the job; what it brings when it thaws is not taken."""
    frozen = scene.platform.pids()["worker"]
    job = scene.begin(client, USERS)
    held = freeze_with_a_partition(scene.ledger, job, frozen)
    try:
        scene.check(client, job, USERS)
        with scene.ledger.read() as session:
            done = session.get_one(PartitionRow, held)
            assert (done.state, done.attempt, done.fencing_token) == ("done", 2, 2)
            result = done.result
    finally:
        os.kill(frozen, signal.SIGCONT)
    log = scene.platform.directory.logs / "worker.log"
    wait_until(lambda: '"ending": "lease_lost"' in log.read_text())
    with scene.ledger.read() as session:
        after = session.get_one(PartitionRow, held)
        assert (after.state, after.fencing_token, after.result) == ("done", 2, result)
    scene.check(client, job, USERS)
    assert scene.platform.pids()["worker"] == frozen, "it goes on working"


def freeze_with_a_partition(ledger: Database, job: str, pid: int) -> str:
    """SIGSTOP while the worker holds a partition of the job and is within no transaction on it; its id."""
    held = select(PartitionRow.id).where(
        PartitionRow.job_id == job,
        PartitionRow.state == "leased",
        PartitionRow.lease_owner.contains(f":{pid}:"),
    )
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        os.kill(pid, signal.SIGSTOP)
        with ledger.write() as session:
            # Whoever claims or commits holds this row's lock.
            row = select(JobRow).where(JobRow.id == job).with_for_update(skip_locked=True)
            if session.scalar(row) is not None and (partition := session.scalar(held)) is not None:
                return str(partition)
        os.kill(pid, signal.SIGCONT)
        time.sleep(0.01)  # let it go on to another moment
    raise AssertionError("the worker never held a partition")


def answers(client: Client, job: str) -> bool:
    try:
        client.jobs.get(job)
    except Unavailable:
        return False
    return True


def test_an_s3_server_out_of_reach_for_half_a_minute_costs_nothing_but_time(
    scene: Scene, client: Client, world: Any
) -> None:
    """Meanwhile readers answer from the snapshot they have open."""
    before = client.spaces.lookup(ITEMS, world.keys)
    job = scene.reach_the_middle(client, ITEMS)
    scene.way_to_s3.cut()
    until = time.monotonic() + OUTAGE_SECONDS
    while time.monotonic() < until:
        meanwhile = client.spaces.lookup(ITEMS, world.keys)
        assert (meanwhile.vectors == before.vectors).all()
        time.sleep(0.5)
    assert client.jobs.get(job).state == "running"
    scene.way_to_s3.mend()
    scene.check(client, job, ITEMS)
