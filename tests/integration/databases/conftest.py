"""Empty databases on SQLite and PostgreSQL."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.exc import OperationalError

POSTGRES = os.environ.get("BEDPLATE_TEST_POSTGRES", "postgresql+psycopg://postgres@127.0.0.1:5432")

NewDatabase = Callable[[], str]
"""Makes an empty database; its URL."""


@pytest.fixture(params=["sqlite", "postgresql"])
def new_database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[NewDatabase]:
    if request.param == "sqlite":
        yield lambda: f"sqlite:///{tmp_path / uuid.uuid4().hex}.db"
        return
    made: list[str] = []
    server = create_engine(f"{POSTGRES}/postgres", isolation_level="AUTOCOMMIT")
    try:
        server.connect().close()
    except OperationalError as error:
        pytest.skip(f"NO POSTGRESQL at {POSTGRES}: start one or set BEDPLATE_TEST_POSTGRES: {error}")

    def make() -> str:
        made.append(f"bedplate_history_{uuid.uuid4().hex}")
        with server.connect() as connection:
            connection.execute(text(f"CREATE DATABASE {made[-1]}"))
        return f"{POSTGRES}/{made[-1]}"

    yield make
    with server.connect() as connection:
        for name in made:
            connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
    server.dispose()
