"""A store on files and one on real servers, for all tests of a module."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from tests.integration.places import Ground, ObjectPlace

from bedplate.wire.registry import SpaceSignature
from bedplate.wire.store import IndexSpecification, Snapshot, WriteAnswer
from bedplate_store import snapshots, spaces
from bedplate_store.database import Database
from bedplate_store.objects import ObjectStore
from bedplate_store.readers import SpaceReaders
from bedplate_store.segments import write_segment
from bedplate_store.spaces import SpaceKey
from bedplate_store.writes import Writes

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
DIM = 4
_VERSIONS = count(1)


@dataclass
class Store:
    """What the tests do to a store, in one line each."""

    database: Database
    object_place: ObjectPlace
    cache_dir: Path

    def __post_init__(self) -> None:
        self.objects: ObjectStore = self.object_place.open()

    def space(self, name: str = "item", **signature: Any) -> SpaceKey:
        key = SpaceKey("core", next(_VERSIONS), name)
        with self.database.write() as session:
            spaces.ensure_space(
                session,
                foundation=key.foundation,
                version=key.version,
                space=name,
                signature=SpaceSignature(**{"dim": DIM, "key_type": "int64", **signature}),
                team="foundation-team",
                now=NOW,
            )
        return key

    def readers(self, **options: Any) -> SpaceReaders:
        return SpaceReaders(self.database, self.objects, self.cache_dir, **options)

    def upsert(
        self, key: SpaceKey, keys: Any, vectors: Any, now: datetime = NOW, attributes: Any = None
    ) -> WriteAnswer:
        return Writes(self.database, self.objects).upsert(
            **key._asdict(), keys=keys, vectors=vectors, now=now, attributes=attributes
        )

    def delete(self, key: SpaceKey, keys: Any, now: datetime = NOW) -> WriteAnswer:
        return Writes(self.database, self.objects).delete(**key._asdict(), keys=keys, now=now)

    def partition(self, key: SpaceKey, keys: Any, vectors: Any) -> str:
        with self.database.read() as session:
            space = spaces.get_space(session, *key)
        info = write_segment(
            self.objects, keys=keys, vectors=vectors, dtype=space.dtype, key_type=space.key_type
        )
        return info.digest

    def prepare(self, key: SpaceKey, *partitions: str, **options: Any) -> snapshots.PreparedSnapshot:
        specification = options.pop("specification", IndexSpecification())
        return snapshots.prepare(
            self.database, self.objects, self.cache_dir, key, partitions, specification, **options
        )

    def publish(
        self, prepared: snapshots.PreparedSnapshot, job: str | None = None, now: datetime = NOW
    ) -> Snapshot:
        with self.database.write() as session:
            return snapshots.publish(session, prepared, objects=self.objects, job=job, now=now)

    def embed(self, key: SpaceKey, keys: Any, vectors: Any, now: datetime = NOW) -> Snapshot:
        return self.publish(self.prepare(key, self.partition(key, keys, vectors)), now=now)


@pytest.fixture(scope="module")
def store(ground: Ground, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    folder = tmp_path_factory.mktemp("store")
    with ground.places(folder) as places:
        database = Database(places.store_url)
        yield Store(database, places.objects, folder / "cache")
        database.close()
