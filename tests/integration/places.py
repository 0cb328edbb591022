"""Where what is under test keeps its data: on files, or on real servers."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from tests.engines import S3, PostgreSQL

from bedplate_registry.database import Database as RegistryDatabase
from bedplate_store.database import Database as StoreDatabase
from bedplate_store.objects import ObjectStore, open_object_store

FILES, SERVERS = "sqlite-files", "postgresql-s3"


@dataclass(frozen=True)
class ObjectPlace:
    """An object store that is empty, and nobody else's.

    Attributes:
        keys: as arguments of ``open_object_store``.
    """

    url: str
    keys: dict[str, str] = field(default_factory=dict)

    def open(self) -> ObjectStore:
        return open_object_store(self.url, **self.keys)

    def environment(self) -> dict[str, str]:
        keys = {f"BEDPLATE_S3_{name.upper()}": value for name, value in self.keys.items()}
        return {"BEDPLATE_OBJECTS_URL": self.url, **keys}


@dataclass(frozen=True)
class Places:
    """URLs of a registry's and a store's database, both migrated, and an object store."""

    registry_url: str
    store_url: str
    objects: ObjectPlace

    def environment(self) -> dict[str, str]:
        """Of a process that works there."""
        given = {
            "BEDPLATE_REGISTRY_DATABASE_URL": self.registry_url,
            "BEDPLATE_STORE_DATABASE_URL": self.store_url,
        }
        return {**os.environ, **given, **self.objects.environment()}


class Ground(Protocol):
    """An engine of each kind. Where it is files, they lie in the folder that is given."""

    def objects(self, folder: Path) -> ObjectPlace: ...

    def places(self, folder: Path) -> AbstractContextManager[Places]: ...


def migrate(registry_url: str, store_url: str) -> None:
    for database in (RegistryDatabase(registry_url), StoreDatabase(store_url)):
        database.migrate()
        database.close()


@dataclass(frozen=True)
class OnFiles:
    """``migrated``: a folder whose databases are copied."""

    migrated: Path

    def objects(self, folder: Path) -> ObjectPlace:
        return ObjectPlace(f"file://{folder / 'objects'}")

    @contextmanager
    def places(self, folder: Path) -> Iterator[Places]:
        urls = []
        for name in ("registry.db", "store.db"):
            shutil.copy(self.migrated / name, folder / name)
            urls.append(f"sqlite:///{folder / name}")
        yield Places(*urls, self.objects(folder))


@dataclass(frozen=True)
class OnServers:
    """``migrated``: the URLs of databases that are copied; nobody is connected to them."""

    postgresql: PostgreSQL
    migrated: tuple[str, str]
    s3: S3
    bucket_url: str

    def objects(self, folder: Path) -> ObjectPlace:
        # A prefix of its own keeps it apart: a bucket costs more.
        return ObjectPlace(self.bucket_url.replace("?", f"/{uuid.uuid4().hex}?", 1), self.s3.keys)

    @contextmanager
    def places(self, folder: Path) -> Iterator[Places]:
        registry_template, store_template = (url.rpartition("/")[2] for url in self.migrated)
        with (
            self.postgresql.database(registry_template) as registry,
            self.postgresql.database(store_template) as store,
        ):
            yield Places(registry, store, self.objects(folder))
