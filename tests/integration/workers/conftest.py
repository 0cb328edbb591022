"""The worker loop without a broker: the task's function is called with the ids the outbox would send."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from bedplate.wire.store import Job
from bedplate_modeling.runtime import FoundationRuntime
from bedplate_registry.database import Database as RegistryDatabase
from bedplate_store import jobs, outbox
from bedplate_store.database import Database as StoreDatabase
from bedplate_store.objects import MemoryObjectStore
from bedplate_workers.checkpoints import CheckpointFiles, Checkpoints
from bedplate_workers.handlers import Handlers, Workplace
from bedplate_workers.work import Ending, Worker

LEASE_SECONDS = 30.0


class Clock:
    """Time that moves when told to."""

    def __init__(self) -> None:
        self.time = datetime(2026, 1, 1, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.time

    def advance(self, seconds: float) -> None:
        self.time += timedelta(seconds=seconds)


@dataclass
class Bench:
    """A workplace with a ledger, and a worker to try on it."""

    workplace: Workplace
    clock: Clock

    def worker(
        self, handlers: Handlers, owner: str = "worker", stopping: Callable[[], bool] = lambda: False
    ) -> Worker:
        return Worker(self.workplace, handlers, owner=owner, lease_seconds=LEASE_SECONDS, stopping=stopping)

    def job(self, kind: str = "count", partitions: int = 2, max_attempts: int = 3) -> Job:
        """A job of stages "count" and "sum"."""
        counting = [jobs.PartitionSpec({"number": number}, 1) for number in range(partitions)]
        with self.workplace.store.write() as session:
            return jobs.create(
                session,
                kind=kind,
                subject="numbers",
                team="feed",
                params={},
                stages=[jobs.Stage("count", counting), jobs.Stage("sum", [jobs.PartitionSpec({}, 1)])],
                max_attempts=max_attempts,
                now=self.clock(),
            )

    def state(self, job: Job) -> Job:
        with self.workplace.store.read() as session:
            return jobs.get(session, job.id)

    def messages(self) -> list[str]:
        """Take the partition ids that the outbox would send now."""
        taken: list[str] = []
        while outbox.drain(
            self.workplace.store, lambda _task, arguments: taken.append(arguments[0]), self.clock()
        ):
            pass
        return taken

    def work_all(self, worker: Worker) -> list[Ending]:
        """Work as long as there are messages, waiting out the pauses between retries."""
        endings: list[Ending] = []
        for _ in range(50):
            endings += [worker.work(partition) for partition in self.messages()]
            self.clock.advance(10)
        return endings


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def bench(tmp_path: Path, clock: Clock) -> Iterator[Bench]:
    registry = RegistryDatabase(f"sqlite:///{tmp_path / 'registry.db'}")
    store = StoreDatabase(f"sqlite:///{tmp_path / 'store.db'}")
    registry.migrate()
    store.migrate()
    objects = MemoryObjectStore()
    files = CheckpointFiles(registry, objects, tmp_path / "cache")
    workplace = Workplace(
        registry=registry,
        store=store,
        objects=objects,
        checkpoints=Checkpoints(files, FoundationRuntime.load),
        cache_dir=tmp_path / "cache" / "segments",
        spool_dir=tmp_path / "spool",
        collect_grace_seconds=3600,
        now=clock,
    )
    yield Bench(workplace, clock)
    workplace.close()
