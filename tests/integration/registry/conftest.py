"""A migrated registry on files and on real servers, and the steps most tests begin with."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Barrier
from typing import Any, TypeVar

import numpy as np
import pytest
from safetensors.numpy import save
from sqlalchemy import text
from tests.engines import PostgreSQL
from tests.integration.places import FILES

from bedplate.databases import Limits
from bedplate.wire.registry import (
    AliasMove,
    ExpertCreate,
    ExpertVersion,
    ExpertVersionCreate,
    FileManifest,
    FoundationCreate,
    Signature,
    SpaceSignature,
    SurfaceCreate,
    TeamCreate,
    TensorSignature,
    Version,
    VersionCreate,
)
from bedplate_registry import (
    aliases,
    expert_versions,
    experts,
    foundations,
    surfaces,
    teams,
    versions,
)
from bedplate_registry.checkpoint_files import CheckpointPolicy
from bedplate_registry.database import Database
from bedplate_registry.tables import Base
from bedplate_store.objects import ObjectStore

FOUNDATION = CheckpointPolicy(("hstu-foundation",), "model.safetensors", "config.json", "signature.json")
EXPERT = dataclasses.replace(FOUNDATION, architectures=("fm-expert",))
NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
ResultT = TypeVar("ResultT")


@dataclass
class Checkpoint:
    """Files as they will be uploaded, and the signature that goes with them."""

    files: dict[str, bytes]
    signature: Signature
    parts: int = 1

    @property
    def manifests(self) -> list[FileManifest]:
        return [
            FileManifest(
                name=name, sha256=hashlib.sha256(data).hexdigest(), bytes=len(data), parts=self.parts
            )
            for name, data in self.files.items()
        ]

    def part(self, name: str, part: int) -> bytes:
        data = self.files[name]
        size = -(-len(data) // self.parts)
        return data[part * size : (part + 1) * size]

    def document(self, **members: Any) -> VersionCreate:
        return VersionCreate(signature=self.signature, files=self.manifests, **members)


def make_checkpoint(
    seed: int = 0, parts: int = 1, architecture: str = FOUNDATION.architectures[0]
) -> Checkpoint:
    weights = {"layer.weight": np.full((3, 4), seed, np.float32), "layer.bias": np.zeros(3, np.float16)}
    signature = Signature(
        architecture=architecture,
        spaces={"item": SpaceSignature(dim=4, entity="item"), "tae": SpaceSignature(dim=4)},
        tensors={
            "layer.weight": TensorSignature(dtype="F32", shape=[3, 4]),
            "layer.bias": TensorSignature(dtype="F16", shape=[3]),
        },
    )
    files = {
        "model.safetensors": save(weights),
        "config.json": json.dumps({"architecture": architecture, "seed": seed}).encode(),
        "signature.json": signature.model_dump_json().encode(),
    }
    return Checkpoint(files, signature, parts)


@dataclass
class Registry:
    """A registry with team ``core-team``, foundation ``core``, team ``feed-team`` and surface ``feed``."""

    database: Database
    blobs: ObjectStore
    now: datetime = NOW
    policy: CheckpointPolicy = FOUNDATION

    def later(self) -> datetime:
        self.now += timedelta(seconds=1)
        return self.now

    def populate(self) -> None:
        with self.database.write() as session:
            teams.create(session, TeamCreate(name="core-team"), self.now)
            teams.create(session, TeamCreate(name="feed-team"), self.now)
            foundations.create(session, FoundationCreate(name="core", team="core-team"), self.now)
            surfaces.create(session, SurfaceCreate(name="feed", team="feed-team"), self.now)

    def draft(self, checkpoint: Checkpoint, **members: Any) -> Version:
        return versions.create(
            self.database, "core", checkpoint.document(**members), self.later(), self.policy
        )

    def upload(self, version: int, checkpoint: Checkpoint) -> None:
        for name in checkpoint.files:
            for part in range(checkpoint.parts):
                self.send(version, name, part, checkpoint.part(name, part))

    def send(self, version: int, name: str, part: int, data: bytes) -> None:
        versions.receive_part(self.database, self.blobs, "core", version, name, part, data)

    def finalise(self, version: int) -> Version:
        return versions.finalise(self.database, self.blobs, "core", version, self.later(), self.policy)

    def ready(self, seed: int = 0, **members: Any) -> Version:
        checkpoint = make_checkpoint(seed)
        version = self.draft(checkpoint, **members).version
        self.upload(version, checkpoint)
        return self.finalise(version)

    def move(self, alias: str, version: int, expected: int | None = None) -> None:
        document = AliasMove(version=version, expected_version=expected)
        with self.database.write() as session:
            aliases.move(session, "core", alias, document, "tester", self.later())

    def get(self, version: int) -> Version:
        with self.database.read() as session:
            return versions.get(session, "core", version)

    def expert(self, name: str = "ranker", surface: str = "feed") -> None:
        with self.database.write() as session:
            experts.create(session, ExpertCreate(name=name, surface=surface), self.later())

    def expert_ready(
        self, name: str = "ranker", pinned: str | None = "core@1", seed: int = 0
    ) -> ExpertVersion:
        checkpoint = make_checkpoint(100 + seed, architecture="fm-expert")
        document = ExpertVersionCreate(
            signature=checkpoint.signature,
            files=checkpoint.manifests,
            pinned_version=pinned,
            pinned_space="tae" if pinned else None,
        )
        version = expert_versions.create(self.database, name, document, self.later(), EXPERT).version
        for file, data in checkpoint.files.items():
            expert_versions.receive_part(self.database, self.blobs, name, version, file, 0, data)
        return expert_versions.finalise(self.database, self.blobs, name, version, self.later(), EXPERT)


def at_once(calls: list[Callable[[], ResultT]]) -> list[ResultT | Exception]:
    """Run the calls in threads that start together; what each returned or raised."""
    barrier = Barrier(len(calls))

    def run(call: Callable[[], ResultT]) -> ResultT | Exception:
        barrier.wait()
        try:
            return call()
        except Exception as error:  # noqa: BLE001  # the test looks at it
            return error

    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(run, calls))


@pytest.fixture
def empty_database_url(request: pytest.FixtureRequest, engines: str, tmp_path: Path) -> Iterator[str]:
    if engines == FILES:
        yield f"sqlite:///{tmp_path / 'empty.db'}"
    else:
        with request.getfixturevalue("postgresql").database() as url:
            yield url


@pytest.fixture(scope="session")
def migrated_postgres(postgresql: PostgreSQL) -> Iterator[Database]:
    with postgresql.database() as url:
        database = Database(url, Limits(pool_size=16))
        database.migrate()
        yield database
        database.close()


@pytest.fixture
def database(request: pytest.FixtureRequest, engines: str, tmp_path: Path) -> Iterator[Database]:
    if engines == FILES:
        with request.getfixturevalue("on_files").places(tmp_path) as places:
            database = Database(places.registry_url)
            yield database
            database.close()
        return
    database = request.getfixturevalue("migrated_postgres")
    with database.write() as session:
        tables = ", ".join(table.name for table in Base.metadata.sorted_tables)
        session.execute(text(f"TRUNCATE {tables} RESTART IDENTITY CASCADE"))
    yield database


@pytest.fixture
def registry(database: Database, objects: ObjectStore) -> Registry:
    registry = Registry(database, objects)
    registry.populate()
    return registry


@pytest.fixture
def checkpoint() -> Callable[..., Checkpoint]:
    return make_checkpoint


@pytest.fixture
def concurrently() -> Callable[[list[Callable[[], Any]]], list[Any]]:
    return at_once
