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

from bedplate import Client
from bedplate.errors import Unavailable
from bedplate_services.supervisor.platform import Platform
from bedplate_store.database import Database
from bedplate_store.tables.jobs import JobRow, PartitionRow

from .conftest import populated_platform

PARTITIONS = 30
OUTAGE_SECONDS = 30.0
PATIENCE_SECONDS = 180.0
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
    undisturbed: dict[str, str]
    """Digests of jobs that nothing befell, by space."""


@pytest.fixture(scope="module", params=[Redis, RabbitMQ], ids=["redis", "rabbitmq"])
def scene(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    world: Any,
    s3: S3,
    embed: Callable[..., str],
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
        client = stack.enter_context(Client(platform.client_url, platform.token))
        jobs = {space: embed(client, space, partitions=2) for space in (ITEMS, OTHER_ITEMS, USERS)}
        undisturbed = {space: snapshot_digest(client, job, space) for space, job in jobs.items()}
        ledger = Database(platform.engines.store_database)
        stack.callback(ledger.close)
        yield Scene(platform, postgresql, broker, way, ledger, undisturbed)


@pytest.fixture
def client(scene: Scene) -> Iterator[Client]:
    with Client(scene.platform.client_url, scene.platform.token) as made:
        yield made


def check_whole(client: Client, job: str, space: str, rows: int) -> None:
    """Every partition is done once, and one snapshot has every row."""
    state = client.jobs.get(job)
    assert state.state == "succeeded"
    assert all(stage.done == stage.total for stage in state.progress)
    assert [each.rows for each in client.spaces.snapshots(space) if each.job == job] == [rows]


def test_a_broker_killed_and_emptied_costs_nothing_but_time(
    scene: Scene,
    client: Client,
    world: Any,
    embed: Callable[..., str],
    wait_for_middle: Callable[..., Any],
    snapshot_digest: Callable[..., str],
) -> None:
    """Its messages and queues are gone. A job that is asked for while it is away begins when it is back."""
    job = embed(client, ITEMS, partitions=PARTITIONS)
    wait_for_middle(client, job)
    scene.broker.kill()
    asked_meanwhile = embed(client, OTHER_ITEMS, partitions=2)
    scene.broker.empty()
    scene.broker.restart()
    assert snapshot_digest(client, job, ITEMS) == scene.undisturbed[ITEMS]
    assert snapshot_digest(client, asked_meanwhile, OTHER_ITEMS) == scene.undisturbed[OTHER_ITEMS]
    check_whole(client, job, ITEMS, len(world.keys))
    check_whole(client, asked_meanwhile, OTHER_ITEMS, len(world.keys))


def test_a_database_killed_and_started_again_costs_nothing_but_time(
    scene: Scene,
    client: Client,
    world: Any,
    embed: Callable[..., str],
    wait_for_middle: Callable[..., Any],
    snapshot_digest: Callable[..., str],
) -> None:
    """Nobody who works on the job has to be started again."""
    job = embed(client, ITEMS, partitions=PARTITIONS)
    wait_for_middle(client, job)
    before = scene.platform.pids()
    with scene.database.away(), pytest.raises(Unavailable):
        client.jobs.get(job)
    wait_until(lambda: answers(client, job))
    assert snapshot_digest(client, job, ITEMS) == scene.undisturbed[ITEMS]
    check_whole(client, job, ITEMS, len(world.keys))
    assert before.items() <= scene.platform.pids().items()


def test_a_killed_worker_costs_nothing_but_time(
    scene: Scene,
    client: Client,
    world: Any,
    embed: Callable[..., str],
    snapshot_digest: Callable[..., str],
) -> None:
    """It dies with a partition in its hands, which is done again."""
    worker = scene.platform.pids()["worker"]
    job = embed(client, ITEMS, partitions=PARTITIONS)
    held = freeze_with_a_partition(scene.ledger, job, worker)
    os.kill(worker, signal.SIGKILL)
    assert snapshot_digest(client, job, ITEMS) == scene.undisturbed[ITEMS]
    with scene.ledger.read() as session:
        done = session.get_one(PartitionRow, held)
        assert (done.state, done.attempt, done.fencing_token) == ("done", 2, 2)
    check_whole(client, job, ITEMS, len(world.keys))


def test_a_worker_frozen_past_its_lease_comes_too_late(
    scene: Scene,
    client: Client,
    world: Any,
    embed: Callable[..., str],
    snapshot_digest: Callable[..., str],
) -> None:
    """Another one does its partition and ends the job; what it brings when it thaws is not taken."""
    frozen = scene.platform.pids()["worker"]
    job = embed(client, USERS, partitions=PARTITIONS)
    held = freeze_with_a_partition(scene.ledger, job, frozen)
    try:
        assert snapshot_digest(client, job, USERS) == scene.undisturbed[USERS]
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
    check_whole(client, job, USERS, 150)
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


def wait_until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize("scene", [Redis], ids=["redis"], indirect=True, scope="module")
def test_an_s3_server_out_of_reach_for_half_a_minute_costs_nothing_but_time(
    scene: Scene,
    client: Client,
    world: Any,
    embed: Callable[..., str],
    wait_for_middle: Callable[..., Any],
    snapshot_digest: Callable[..., str],
) -> None:
    """Meanwhile readers answer from the snapshot they have open."""
    before = client.spaces.lookup(ITEMS, world.keys)
    job = embed(client, ITEMS, partitions=PARTITIONS)
    wait_for_middle(client, job)
    scene.way_to_s3.cut()
    until = time.monotonic() + OUTAGE_SECONDS
    while time.monotonic() < until:
        meanwhile = client.spaces.lookup(ITEMS, world.keys)
        assert (meanwhile.vectors == before.vectors).all()
        time.sleep(0.5)
    assert client.jobs.get(job).state == "running"
    scene.way_to_s3.mend()
    assert snapshot_digest(client, job, ITEMS) == scene.undisturbed[ITEMS]
    check_whole(client, job, ITEMS, len(world.keys))
