"""A metadata database: one transaction per request or task, committed at its edge.

Reads and writes have different session types, so that a function which only reads says so in its signature.
On SQLite a write begins with ``BEGIN IMMEDIATE``: it waits for its turn instead of failing half-way.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Generic, TypeVar

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.orm import Session

from bedplate.databases.engines import WRITES, open_engine
from bedplate.databases.history import History, SchemaRefused, SchemaState
from bedplate.databases.limits import Limits
from bedplate.databases.retries import OnRetry, again_while_it_gives_way, sqlstate_of

_log = logging.getLogger(__name__)
_LOCK_NOT_AVAILABLE = "55P03"
_MIGRATION_ATTEMPTS = 30
_MIGRATION_PAUSE_SECONDS = 1.0


class ReadSession(Session):
    """A session nobody commits."""


class WriteSession(ReadSession):
    """A session that :meth:`Database.write` commits when its block ends, and rolls back when it raises."""


ReadT = TypeVar("ReadT", bound=ReadSession)
WriteT = TypeVar("WriteT", bound=WriteSession)
ResultT = TypeVar("ResultT")


def count_nothing(_database: str, _reason: str) -> None:
    """For who has no metrics; a transaction that is run again is in the log in any case."""


class Database(Generic[ReadT, WriteT]):
    """Engine, sessions and migrations of one database URL (``sqlite:////path`` or ``postgresql+psycopg://``).

    Registry and store each have session types of their own, so that nobody hands one's to the other.
    """

    def __init__(
        self,
        url: str,
        limits: Limits,
        on_retry: OnRetry,
        *,
        history: History,
        reads: type[ReadT],
        writes: type[WriteT],
    ) -> None:
        self.url = url
        self._on_retry = on_retry
        self.history = history
        self.engine = open_engine(url, limits)
        self._reads, self._writes = reads, writes
        # On SQLite a transaction is a snapshot anyway, and BEGIN without IMMEDIATE takes no write lock.
        self._read_options: dict[str, Any] = (
            {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
            if self.engine.dialect.name == "postgresql"
            else {}
        )

    def migrate(self, revision: str = "head", *, sleep: Callable[[float], None] = time.sleep) -> str | None:
        """Bring the schema to ``revision``; of several processes that start at once, one migrates.

        A table that is in use is waited for, and then left alone for a moment, so that those who wait behind
        the migration are not held up; then it begins anew.

        Returns:
            the revision it was at before; None: it was empty.

        Raises:
            SchemaRefused: what is there is not what its revision says; nothing was changed.
        """
        attempt = 1
        while True:
            try:
                with self._writing() as connection, connection.begin():
                    return self.history.upgrade(connection, revision)
            except DBAPIError as error:
                in_use = sqlstate_of(error) == _LOCK_NOT_AVAILABLE
                if not in_use or attempt == _MIGRATION_ATTEMPTS:
                    raise
            attempt += 1
            sleep(_MIGRATION_PAUSE_SECONDS)

    def applied_revision(self) -> str | None:
        """The revision of the database; None: it is empty."""
        with self.engine.connect() as connection:
            return self.history.applied(connection)

    def schema_state(self) -> SchemaState:
        """What the database is to this code."""
        return self.history.state(self.applied_revision())

    def check_revision(self) -> None:
        """The cheap half of :meth:`check_schema`, for readiness: it answers and is new enough."""
        applied = self.applied_revision()
        if self.history.state(applied) in ("empty", "older"):
            raise SchemaRefused(self.history.lacking(applied), revision=applied)

    def check_schema(self) -> None:
        """Raises SchemaRefused unless this code can work on the database; nothing is migrated."""
        with self.engine.connect() as connection:
            self.history.check(connection)

    @contextmanager
    def read(self) -> Iterator[ReadT]:
        """A consistent view of the database: all its queries see one state; nothing is written."""
        with (
            self.engine.connect().execution_options(**self._read_options) as connection,
            self._reads(bind=connection, expire_on_commit=False) as session,
        ):
            yield session

    @contextmanager
    def write(self) -> Iterator[WriteT]:
        """One write transaction: committed on return, rolled back on any exception."""
        with (
            self._writing() as connection,
            self._writes(bind=connection, expire_on_commit=False) as session,
        ):
            yield session
            session.commit()

    def transact(self, work: Callable[[WriteT], ResultT]) -> ResultT:
        """One write transaction that runs ``work``, and runs it again in a new one where the database rolled
        it back to end a deadlock, or because it could not be put in a row with others.

        ``work`` does nothing but read and write in its session, so that running it again is the same as
        having run it once.
        """

        def once() -> ResultT:
            with self.write() as session:
                return work(session)

        return again_while_it_gives_way(self.history.name, once, self._on_retry)

    def close(self) -> None:
        self.engine.dispose()

    def _writing(self) -> Connection:
        return self.engine.connect().execution_options(**{WRITES: True})


def exit_if_refused(*databases: Database[Any, Any]) -> None:
    """End a process that is starting where it cannot work on a database's schema, and say what would mend it.

    A database that does not answer is no reason to end: it may be back in a moment, and whoever needs it says
    so until then.
    """
    for database in databases:
        try:
            database.check_schema()
        except SchemaRefused as refused:
            sys.exit(f"{refused.detail[:1].upper()}{refused.detail[1:]}")
        except SQLAlchemyError as error:
            _log.warning("the %s database does not answer yet: %s", database.history.name, error)
