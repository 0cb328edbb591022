"""The worker loop without a broker: the task's function is called with the ids the outbox would send."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.integration.places import Places

from bedplate.client.checkpoints import read_checkpoint
from bedplate.wire.registry import FoundationCreate, TeamCreate, Version, VersionCreate
from bedplate.wire.store import Job
from bedplate_modeling import checkpoint_layout as layout
from bedplate_modeling.checkpoints import save_checkpoint
from bedplate_modeling.config import FoundationConfig
from bedplate_modeling.events import Catalogue, Events
from bedplate_modeling.foundation import FoundationModel
from bedplate_modeling.runtime import FoundationRuntime
from bedplate_modeling.training import build_vocabulary
from bedplate_registry import foundations, teams, versions
from bedplate_registry.checkpoint_files import CheckpointPolicy
from bedplate_registry.database import Database as RegistryDatabase
from bedplate_store import jobs, outbox
from bedplate_store.database import Database as StoreDatabase
from bedplate_workers.checkpoints import CheckpointFiles, Checkpoints
from bedplate_workers.handlers import Handlers, Workplace
from bedplate_workers.work import Ending, Worker

LEASE_SECONDS = 30.0
FOUNDATION_CHECKPOINTS = CheckpointPolicy(
    (layout.FOUNDATION,), layout.WEIGHTS, layout.CONFIG, layout.SIGNATURE
)


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

    def worker(self, handlers: Handlers, owner: str = "worker", **more: Any) -> Worker:
        return Worker(self.workplace, handlers, owner=owner, lease_seconds=LEASE_SECONDS, **more)

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


def publish_foundation(bench: Bench, folder: Path, seed: int = 0) -> Version:
    """A finalised version of ``core`` with random weights: 40 items, 8 dimensions, saved in ``folder``."""
    events = Events.from_columns(
        user=["u"] * 40,
        item=[f"item-{number:02d}" for number in range(40)],
        action=["like"] * 40,
        surface=["feed"] * 40,
        event_time_ms=range(40),
        label=[number % 2 for number in range(40)],
    )
    catalogue = Catalogue.from_items({f"item-{number:02d}": {"genre": number % 3} for number in range(40)})
    vocabulary, table = build_vocabulary(events, catalogue)
    torch.manual_seed(seed)
    model = FoundationModel(FoundationConfig(dim=8, layers=1, max_history=8), vocabulary, table)
    save_checkpoint(folder, model)
    checkpoint = read_checkpoint(folder)
    document = VersionCreate(signature=checkpoint.signature, files=checkpoint.files)
    place = bench.workplace
    with place.registry.write() as session:
        if not teams.list(session):
            teams.create(session, TeamCreate(name="core-team"), bench.clock())
            foundations.create(session, FoundationCreate(name="core", team="core-team"), bench.clock())
    draft = versions.create(place.registry, "core", document, bench.clock(), FOUNDATION_CHECKPOINTS)
    for file in checkpoint.files:
        data = (folder / file.name).read_bytes()
        versions.receive_part(place.registry, place.objects, "core", draft.version, file.name, 0, data)
    return versions.finalise(
        place.registry, place.objects, "core", draft.version, bench.clock(), FOUNDATION_CHECKPOINTS
    )


@pytest.fixture
def foundation(bench: Bench, tmp_path: Path) -> Version:
    """``core@1``."""
    return publish_foundation(bench, tmp_path / "core-1")


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def bench(tmp_path: Path, clock: Clock, places: Places) -> Iterator[Bench]:
    registry, store = RegistryDatabase(places.registry_url), StoreDatabase(places.store_url)
    objects = places.objects.open()
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
