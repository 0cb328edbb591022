"""SQLAlchemy engines as the platform wants them, for SQLite and PostgreSQL."""

from __future__ import annotations

import sqlite3
import time
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event

from bedplate.databases.limits import Limits

WRITES = "bedplate_write"
"""Execution option of a connection whose transaction will write."""
_BUSY_SECONDS = 30
_RETRY_SECONDS = 0.02


def open_engine(url: str, limits: Limits) -> Engine:
    """An engine of one database URL (``sqlite:////path`` or ``postgresql+psycopg://``); connects to nothing
    yet.
    """
    if not url.startswith("sqlite"):
        return create_engine(
            url,
            pool_size=limits.pool_size,
            max_overflow=limits.pool_overflow,
            pool_timeout=limits.pool_seconds,
            pool_recycle=int(limits.recycle_seconds),
            pool_pre_ping=True,
            connect_args=limits.connect_args(),
        )
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
    writes = connection.get_execution_options().get(WRITES, False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
