"""A small world, two foundation versions trained on it for a moment, and platforms of real processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from tests.engines import S3, PostgreSQL, RabbitMQ, Redis
from tests.engines.environments import on_servers

from bedplate import Client
from bedplate.wire.store import EmbedRequest, Job
from bedplate_modeling.checkpoints import save_checkpoint
from bedplate_modeling.config import FoundationConfig
from bedplate_modeling.events import Catalogue, Events
from bedplate_modeling.training import train_foundation
from bedplate_services.supervisor.platform import Platform

ITEMS = 600
USERS = 150
EVENTS_PER_USER = 40
START = datetime(2026, 1, 1, tzinfo=UTC)
AS_OF = START + timedelta(days=300)
SHORT_LEASES = {"BEDPLATE_LEASE_SECONDS": "3", "BEDPLATE_RESEND_SECONDS": "3"}
PATIENCE_SECONDS = 120.0


@dataclass(frozen=True)
class World:
    """A catalogue and a timeline, as they go over the wire, and checkpoints of versions 1 and 2."""

    items: Mapping[str, Mapping[str, Any]]
    events: pa.Table
    checkpoints: list[Path]

    @property
    def keys(self) -> list[str]:
        return list(self.items)

    def populate(self, client: Client) -> None:
        """Team, surface, foundation, catalogue, events and both versions."""
        client.teams.create("foundation")
        client.surfaces.create("feed", team="foundation")
        client.foundations.create("core", team="foundation")
        client.items.put(self.items)
        client.events.send(self.events)
        for number, folder in enumerate(self.checkpoints, start=1):
            version = client.versions.publish("core", folder, parent=number - 1 or None)
            assert version.reference == f"core@{number}"


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    random = np.random.default_rng(7)
    items = {f"item-{number:04d}": {"genre": f"genre-{number % 5}"} for number in range(ITEMS)}
    user = np.repeat(np.arange(USERS), EVENTS_PER_USER)
    item = random.integers(0, ITEMS, len(user))
    label = (random.random(len(user)) < np.where((user + item) % 5 < 2, 0.9, 0.1)).astype(np.float32)
    minutes = np.tile(np.arange(EVENTS_PER_USER) * 97, USERS) + user
    times = int(START.timestamp() * 1e6) + minutes * 60_000_000
    columns = {
        "user": [f"user-{number}" for number in user],
        "item": [f"item-{number:04d}" for number in item],
        "action": ["like" if value else "skip" for value in label],
        "surface": ["feed"] * len(user),
    }
    table = pa.table({**columns, "event_time": pa.array(times, pa.timestamp("us", "UTC")), "label": label})
    events = Events.from_columns(**columns, event_time_ms=times // 1000, label=label)
    folders = []
    for seed in (1, 2):
        config = FoundationConfig(dim=16, layers=1, max_history=32, epochs=1)
        model = train_foundation(events, Catalogue.from_items(items), config, seed=seed)
        folders.append(tmp_path_factory.mktemp("checkpoint"))
        save_checkpoint(folders[-1], model)
    return World(items, table, folders)


def _client(platform: Platform) -> Client:
    return Client(platform.client_url, platform.token)


@contextmanager
def populated_platform(
    folder: Path, world: World, environment: Mapping[str, str], workers: int = 1
) -> Iterator[Platform]:
    """A platform that knows the world. Its workers yield to nobody: there is no traffic to serve."""
    settings = {**SHORT_LEASES, **environment}
    with Platform(folder, environment=settings, workers=workers, worker_niceness=0) as started:
        with _client(started) as client:
            world.populate(client)
        yield started


@pytest.fixture(scope="session")
def embedded_platform(tmp_path_factory: pytest.TempPathFactory, world: World) -> Iterator[Platform]:
    """One platform, on files, for all tests that leave it whole."""
    with populated_platform(tmp_path_factory.mktemp("platform"), world, {}) as started:
        yield started


@pytest.fixture(scope="session")
def platform(embedded_platform: Platform) -> Platform:
    """Of most tests; a module that runs on other engines too has one of its own."""
    return embedded_platform


@pytest.fixture(scope="module")
def platform_on_redis(
    tmp_path_factory: pytest.TempPathFactory, world: World, postgresql: PostgreSQL, redis: Redis, s3: S3
) -> Iterator[Platform]:
    """On PostgreSQL, Redis and S3."""
    folder = tmp_path_factory.mktemp("on-redis")
    with (
        redis.database() as broker,
        on_servers(postgresql, s3, broker) as environment,
        populated_platform(folder, world, environment) as started,
    ):
        yield started


@pytest.fixture(scope="module")
def platform_on_rabbitmq(
    tmp_path_factory: pytest.TempPathFactory, world: World, postgresql: PostgreSQL, rabbitmq: RabbitMQ, s3: S3
) -> Iterator[Platform]:
    """On PostgreSQL, RabbitMQ and S3."""
    folder = tmp_path_factory.mktemp("on-rabbitmq")
    with (
        rabbitmq.virtual_host() as broker,
        on_servers(postgresql, s3, broker) as environment,
        populated_platform(folder, world, environment) as started,
    ):
        yield started


@pytest.fixture
def client(platform: Platform) -> Iterator[Client]:
    with _client(platform) as made:
        yield made


@pytest.fixture(scope="session")
def embed() -> Callable[..., str]:
    """Start the embed job that every test runs: many small partitions of one state of the world."""

    def start(client: Client, reference: str, partitions: int = 100, **options: Any) -> str:
        return client.spaces.embed(reference, EmbedRequest(as_of=AS_OF, partitions=partitions, **options))

    return start


@pytest.fixture(scope="session")
def snapshot_digest() -> Callable[[Client, str, str], str]:
    """Wait for an embed job and return the digest of the snapshot it published."""

    def wait(client: Client, job: str, reference: str) -> str:
        client.jobs.watch(job, poll_seconds=0.05, timeout_seconds=PATIENCE_SECONDS)
        (snapshot,) = [each for each in client.spaces.snapshots(reference) if each.job == job]
        return snapshot.digest

    return wait


@pytest.fixture(scope="session")
def wait_for_middle() -> Callable[..., Job]:
    """Wait until the ledger shows that some partitions of a stage are done, and not all."""

    def wait(client: Client, job: str, stage_name: str = "embed") -> Job:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < deadline:
            state = client.jobs.get(job)
            (stage,) = [each for each in state.progress if each.stage == stage_name]
            if stage.done >= stage.total / 6:
                assert stage.done < stage.total * 5 / 6, "the job was too fast to be caught in the middle"
                assert state.state == "running"
                return state
            time.sleep(0.02)
        raise AssertionError(f"job {job} did not get going")

    return wait


@dataclass
class UpProcess:
    """``bedplate up`` as a user starts it."""

    data: Path
    process: subprocess.Popen[str]
    announced: dict[str, Any] = field(default_factory=dict)

    @property
    def token(self) -> str:
        return (self.data / "admin-token").read_text().strip()

    def client(self) -> Client:
        return Client(self.announced["url"], self.token)

    def pids(self) -> list[int]:
        """The supervisor and its children, as it recorded them."""
        recorded = json.loads((self.data / "processes.json").read_text())
        return [recorded["supervisor"], *recorded["children"].values()]

    def kill_all(self) -> None:
        """kill -9 of every process, the supervisor first so that it restarts nothing."""
        for pid in self.pids():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue  # its leash was faster
        self.process.wait(PATIENCE_SECONDS)
        self.process.communicate()


def bedplate(*arguments: str) -> list[str]:
    """The command line of this environment's ``bedplate``."""
    return [str(Path(sys.executable).parent / "bedplate"), *arguments]


@pytest.fixture
def up() -> Iterator[Callable[[Path], UpProcess]]:
    started: list[UpProcess] = []

    def start(data: Path, *options: str) -> UpProcess:
        process = subprocess.Popen(
            bedplate("up", "--data", str(data), "--port", "0", "--json", *options),
            env={**os.environ, **SHORT_LEASES},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        one = UpProcess(data, process)
        started.append(one)
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, process.communicate()[1]
        one.announced = json.loads(line)
        return one

    yield start
    for one in started:
        if one.process.poll() is None:
            one.process.terminate()
            one.process.communicate(timeout=PATIENCE_SECONDS)
