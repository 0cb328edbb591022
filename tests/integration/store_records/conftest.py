"""The store's database on SQLite and on PostgreSQL, one of each for all tests, emptied before each."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import delete, update
from tests.engines import PostgreSQL
from tests.integration.places import FILES

from bedplate_store.database import Database
from bedplate_store.impressions import ImpressionRecord
from bedplate_store.tables import jobs, records  # registers their tables
from bedplate_store.tables.base import Base

_OWN_MODULES = (jobs.__name__, records.__name__)


@pytest.fixture
def now() -> datetime:
    return datetime(2026, 11, 22, 10, 0, tzinfo=UTC)


@pytest.fixture(scope="session")
def postgres_database(postgresql: PostgreSQL) -> Iterator[Database]:
    with postgresql.database() as url:
        database = Database(url)
        database.migrate()
        yield database
        database.close()


@pytest.fixture(scope="session")
def sqlite_database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    database = Database(f"sqlite:///{tmp_path_factory.mktemp('store')}/store.db")
    database.migrate()
    yield database
    database.close()


@pytest.fixture
def database(request: pytest.FixtureRequest, engines: str) -> Database:
    name = "sqlite_database" if engines == FILES else "postgres_database"
    found: Database = request.getfixturevalue(name)
    own = [mapper for mapper in Base.registry.mappers if mapper.class_.__module__ in _OWN_MODULES]
    with found.write() as session:
        for table in reversed(Base.metadata.sorted_tables):
            if table.name == "sequences":
                session.execute(update(table).values(value=0))
            elif table in [mapper.local_table for mapper in own]:
                session.execute(delete(table))
    return found


@pytest.fixture
def spool(tmp_path: Path) -> Path:
    return tmp_path / "spool"


@pytest.fixture
def make_record() -> Callable[..., ImpressionRecord]:
    """Records whose embeddings are random bits, so that a bit that changes shows."""
    generator = np.random.default_rng(7)

    def make(request_id: str, **given: Any) -> ImpressionRecord:
        items = given.pop("items", ["i1", "i2", "i3"])
        versions = given.pop("versions", ("core@1", "core@2"))
        dim = given.pop("dim", 4)
        bits = {
            version: generator.integers(0, 2**16, (len(items), dim), np.uint16).view(np.float16)
            for version in versions
        }
        fields: dict[str, Any] = {
            "request_id": request_id,
            "user": "u1",
            "surface": "feed",
            "served_at_us": 1_000_000,
            "items": items,
            "expert": None,
            "scores": None,
            "tae": bits,
            "predictions": {version: generator.random(len(items), np.float32) for version in versions},
        }
        return ImpressionRecord(**{**fields, **given})

    return make
