"""The metadata database of the store: one transaction per request or task, committed at its edge.

Reads and writes have different session types, so that a function which only reads says so in its signature.
On SQLite a write begins with ``BEGIN IMMEDIATE``: it waits for its turn instead of failing half-way.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.orm import Session

from bedplate_store.schemas import check_schema

_MIGRATIONS = Path(__file__).parent / "migrations"
_ADVISORY_LOCK = 0xBED0002
_BUSY_SECONDS = 30
_RETRY_SECONDS = 0.02


class ReadSession(Session):
    """A session nobody commits."""


class WriteSession(ReadSession):
    """A session that :meth:`Database.write` commits when its block ends, and rolls back when it raises."""


class Database:
    """Engine, sessions and migrations of one database URL (``sqlite:////path`` or ``postgresql+psycopg://``)."""

    def __init__(self, url: str, *, pool_size: int = 5) -> None:
        self.url = url
        self.engine = _engine(url, pool_size)
        # On SQLite a transaction is a snapshot anyway, and BEGIN without IMMEDIATE takes no write lock.
        self._read_options: dict[str, Any] = (
            {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
            if self.engine.dialect.name == "postgresql"
            else {}
        )

    def migrate(self) -> None:
        """Bring the schema to the newest revision; safe when several processes start at once.

        Raises:
            Conflict: an earlier state of the migrations made it; see :mod:`bedplate_store.schemas`.
        """
        with self.engine.connect().execution_options(bedplate_write=True) as connection, connection.begin():
            if self.engine.dialect.name == "postgresql":
                connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _ADVISORY_LOCK})
            config = Config()
            config.set_main_option("script_location", str(_MIGRATIONS))
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
            check_schema(connection)

    @contextmanager
    def read(self) -> Iterator[ReadSession]:
        """A consistent view of the database: all its queries see one state; nothing is written."""
        with (
            self.engine.connect().execution_options(**self._read_options) as connection,
            ReadSession(bind=connection, expire_on_commit=False) as session,
        ):
            yield session

    @contextmanager
    def write(self) -> Iterator[WriteSession]:
        """One write transaction: committed on return, rolled back on any exception."""
        with (
            self.engine.connect().execution_options(bedplate_write=True) as connection,
            WriteSession(bind=connection, expire_on_commit=False) as session,
        ):
            yield session
            session.commit()

    def close(self) -> None:
        self.engine.dispose()


def _engine(url: str, pool_size: int) -> Engine:
    if not url.startswith("sqlite"):
        return create_engine(url, pool_size=pool_size, max_overflow=2 * pool_size, pool_pre_ping=True)
    engine = create_engine(url, connect_args={"timeout": _BUSY_SECONDS, "check_same_thread": False})
    event.listen(engine, "connect", _sqlite_connect)
    event.listen(engine, "begin", _sqlite_begin)
    return engine


def _sqlite_connect(connection: Any, _record: object) -> None:
    connection.isolation_level = None  # we say BEGIN ourselves, below
    _enter_wal(connection)
    for pragma in (
        "synchronous=FULL",
        "foreign_keys=ON",
        f"busy_timeout={_BUSY_SECONDS * 1000}",
    ):
        connection.execute(f"PRAGMA {pragma}")


def _enter_wal(connection: Any) -> None:
    """Switch the file to WAL. SQLite does not apply its busy timeout to this switch, so several processes
    that open a new file at once would fail; they wait here instead.
    """
    deadline = time.monotonic() + _BUSY_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(_RETRY_SECONDS)


def _sqlite_begin(connection: Connection) -> None:
    writes = connection.get_execution_options().get("bedplate_write", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
