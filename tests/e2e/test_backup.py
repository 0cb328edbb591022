"""The drill of docs/operations.md by its own commands: back up while it runs, lose everything, restore."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import threading
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
from tests.engines import S3, PostgreSQL, Redis
from tests.engines.environments import on_servers

from bedplate import Client
from bedplate.wire.store import TrainingSetCreate

OPERATIONS = Path(__file__).parents[2] / "docs" / "operations.md"
CANDIDATES = ["item-0001", "item-0002", "item-0003"]
ROWS_BEFORE = 50
PATIENCE_SECONDS = 240.0


def told(name: str) -> str:
    """The commands of the document that begin with ``# name``."""
    found = re.findall(rf"^```bash\n(# {re.escape(name)}\n.*?)^```$", OPERATIONS.read_text(), re.M | re.S)
    assert len(found) == 1, f"docs/operations.md has {len(found)} blocks of commands named {name}"
    return str(found[0])


def run(name: str, variables: Mapping[str, str]) -> str:
    """Run the commands as they stand; what they print."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-c", told(name)],
        env={**os.environ, "PATH": path, **variables},
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@dataclass
class Place:
    """Somewhere a platform can live: ``environment`` names its servers, the commands take ``variables``."""

    data: Path
    environment: dict[str, str] = field(default_factory=dict)
    variables: dict[str, str] = field(default_factory=dict)


@dataclass
class Drill:
    """Where the platform was, where it comes to be again, and what the commands are called."""

    kind: str
    before: Place
    after: Place
    backup: Path

    def back_up(self) -> str:
        return run(f"backup: {self.kind}", {**self.before.variables, "BACKUP": str(self.backup)})

    def restore(self) -> None:
        run(f"restore: {self.kind}", {**self.after.variables, "BACKUP": str(self.backup)})


@pytest.fixture(params=["files", "servers"])
def drill(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Drill]:
    if request.param == "files":
        places = [Place(data, variables={"DATA": str(data)}) for data in (tmp_path / "a", tmp_path / "b")]
        yield Drill("up", *places, tmp_path / "backup")
        return
    request.getfixturevalue("pg_dump")  # which the commands of the document find by themselves
    servers = [request.getfixturevalue(name) for name in ("postgresql", "redis", "s3")]
    with (
        on_place(tmp_path / "b", *servers) as after,
        on_place(tmp_path / "a", *servers) as before,
    ):
        # Copies of the bucket lie on another disk; both sides name the same one.
        for place in (before, after):
            place.variables["COPY"] = f"file://{tmp_path / 'copy'}"
        yield Drill("cluster", before, after, tmp_path / "backup")


@contextmanager
def on_place(data: Path, postgresql: PostgreSQL, redis: Redis, s3: S3) -> Iterator[Place]:
    with redis.database() as broker, on_servers(postgresql, s3, broker) as environment:
        urls = {name: environment[f"BEDPLATE_{name}_DATABASE_URL"] for name in ("STORE", "REGISTRY")}
        variables = {f"{name}_DATABASE": url.replace("+psycopg", "") for name, url in urls.items()}
        keys = {name: environment[name] for name in ("BEDPLATE_S3_ACCESS_KEY", "BEDPLATE_S3_SECRET_KEY")}
        bucket = {"BUCKET": environment["BEDPLATE_OBJECTS_URL"]}
        yield Place(data, environment, {**variables, **keys, **bucket})


class Writer:
    """Writes row after row until told to stop, beside the backup."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._stop = threading.Event()
        self.acknowledged = 0
        self.failure: Exception | None = None
        self._thread = threading.Thread(target=self._write)
        self._thread.start()

    def _write(self) -> None:
        try:
            while not self._stop.is_set():
                number = self.acknowledged
                self._client.spaces.upsert("core@2/item", [f"written-{number}"], vector(number))
                self.acknowledged += 1
        except Exception as error:  # noqa: BLE001  # told to the test, which waits for this thread
            self.failure = error

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()
        if self.failure is not None:
            raise self.failure


def vector(number: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Of row ``number``, in numbers that float16 holds."""
    return np.full((1, 16), number / 64, np.float32)


@dataclass(frozen=True)
class State:
    """What callers see of a platform."""

    vectors: bytes
    aliases: dict[str, int]
    snapshots: list[str]
    timeline: list[str]
    versions: list[str | None]

    @classmethod
    def of(cls, client: Client, world: Any) -> State:
        found = client.spaces.lookup("core@production/item", world.keys)
        assert bool(np.all(found.found))
        return cls(
            vectors=found.vectors.tobytes(),
            aliases={alias.alias: alias.version for alias in client.aliases.list("core")},
            snapshots=[each.digest for each in client.spaces.snapshots("core@1/item")],
            timeline=[event.item for event in client.timelines.read("user-7").events],
            versions=[each.digest for each in client.versions.list("core")],
        )


def fill(client: Client, world: Any) -> datetime:
    """Everything there is to lose; when the impressions were served."""
    world.populate(client)
    client.jobs.watch(client.spaces.embed("core@1/item"), poll_seconds=0.1, timeout_seconds=PATIENCE_SECONDS)
    client.aliases.move("core", "production", 1)
    for number in range(ROWS_BEFORE):
        client.spaces.upsert("core@2/item", [f"before-{number}"], vector(number))
    served = datetime.now(UTC)
    client.tae.compute("user-7", "feed", CANDIDATES, versions=["core@1"], request_id="logged-before")
    return served


def learn(client: Client, served: datetime) -> int:
    """Rows of a training set of the impressions that were logged before."""
    labels = pa.array([1.0, 0.0, 1.0], pa.float32())
    times = pa.array([served + timedelta(seconds=1)] * 3, pa.timestamp("us", "UTC"))
    of_request = {"request_id": ["logged-before"] * 3, "item": CANDIDATES}
    client.outcomes.record("feed", pa.table({**of_request, "label": labels, "outcome_time": times}))
    made = client.training_sets.create(
        TrainingSetCreate(
            name="after",
            surface="feed",
            versions=["core@1"],
            window_start=served - timedelta(hours=1),
            window_end=served + timedelta(hours=1),
        )
    )
    rows = client.training_sets.wait(made.id).rows
    assert rows is not None
    return rows


def wait_for_readers(client: Client, space: str) -> None:
    """Until every process that has the space open answers from its newest snapshot."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not all(reader.newest for reader in client.spaces.readers(space)):
        assert time.monotonic() < deadline, "a published snapshot is not opened"
        time.sleep(0.05)


@pytest.mark.timeout(900)
def test_a_platform_is_restored_from_its_backup(
    drill: Drill, world: Any, up: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def started(place: Place) -> Any:
        for name, value in place.environment.items():
            monkeypatch.setenv(name, value)
        return up(place.data)

    platform = started(drill.before)
    token = platform.token
    with platform.client() as client:
        served = fill(client, world)
        if drill.kind == "cluster":
            client.impressions.seal()  # the spool of a lost volume is lost
        state = State.of(client, world)
        writer = Writer(client)
        written_before = writer.acknowledged
        printed = drill.back_up()
        writer.stop()
    assert re.findall(r"(\d+) were deleted meanwhile", printed) == ["0", "0"]
    platform.kill_all()
    # Of servers nothing need be removed: the platform is restored on other ones, which are empty.
    shutil.rmtree(drill.before.data)
    drill.restore()
    restored = started(drill.after)
    with Client(restored.announced["url"], token) as client:
        assert State.of(client, world) == state
        before = client.spaces.lookup("core@2/item", [f"before-{number}" for number in range(ROWS_BEFORE)])
        assert bool(np.all(before.found))
        expected = np.concatenate([vector(number) for number in range(ROWS_BEFORE)])
        np.testing.assert_array_equal(before.vectors.astype(np.float32), expected)
        written = [f"written-{number}" for number in range(writer.acknowledged)]
        beside = client.spaces.lookup("core@2/item", written).found.tolist()
        assert sum(beside) >= written_before
        assert beside == sorted(beside, reverse=True), "a later write is there and an earlier one is not"
        assert learn(client, served) == len(CANDIDATES)
        job = client.spaces.embed("core@2/item")
        ended = client.jobs.watch(job, poll_seconds=0.1, timeout_seconds=PATIENCE_SECONDS)
        assert ended.state == "succeeded"
        wait_for_readers(client, "core@2/item")
        assert bool(np.all(client.spaces.lookup("core@2/item", ["before-0", *world.keys]).found))
