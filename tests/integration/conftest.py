"""A registry's and a store's database on PostgreSQL, migrated: for suites that run on SQLite as well."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from tests.engines import PostgreSQL

from bedplate_registry.database import Database as RegistryDatabase
from bedplate_store.database import Database as StoreDatabase


@dataclass(frozen=True)
class DatabaseUrls:
    registry: str
    store: str


@pytest.fixture(scope="session")
def migrated_postgresql(postgresql: PostgreSQL) -> Iterator[DatabaseUrls]:
    """What the databases of single tests are copied from; nobody is connected to it."""
    with postgresql.database() as registry, postgresql.database() as store:
        for database in (RegistryDatabase(registry), StoreDatabase(store)):
            database.migrate()
            database.close()
        yield DatabaseUrls(registry, store)


@pytest.fixture
def postgresql_urls(postgresql: PostgreSQL, migrated_postgresql: DatabaseUrls) -> Iterator[DatabaseUrls]:
    """Of one test."""
    registry_template, store_template = (
        url.rpartition("/")[2] for url in (migrated_postgresql.registry, migrated_postgresql.store)
    )
    with postgresql.database(registry_template) as registry, postgresql.database(store_template) as store:
        yield DatabaseUrls(registry, store)
