"""The migrations of a database: a line of revisions that only grows at its end (docs/adr/0023-migrations.md).

A release works with its own schema and with newer ones: a later release first adds, and takes away only what
the one before it no longer reads. With an older schema it does not work, and says so.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, MetaData, inspect, text

from bedplate.errors import Conflict

SchemaState = Literal["empty", "older", "current", "newer"]
"""As against the newest revision of this code; ``newer`` is one that this code does not know."""

DDL_LOCK_SECONDS = 5
"""How long a migration waits for a table. Whoever asks for the table meanwhile waits behind it."""


class SchemaRefused(Conflict):
    """This code cannot work on the database as it is; the message says what would mend it."""

    title = "The database's schema does not fit this release"


@dataclass(frozen=True)
class History:
    """The revisions of one database.

    Attributes:
        name: what people call the database: ``registry`` or ``store``.
        scripts: Alembic's folder: ``env.py`` and ``versions``.
        version_table: where the database keeps its revision.
        lock: number of PostgreSQL's advisory lock; one process migrates at a time.
        metadata: the tables that this code declares.
    """

    name: str
    scripts: Path
    version_table: str
    lock: int
    metadata: MetaData

    @cached_property
    def revisions(self) -> list[str]:
        """Oldest first."""
        walked = ScriptDirectory.from_config(self._config()).walk_revisions()
        return [script.revision for script in walked][::-1]

    @property
    def head(self) -> str:
        """The newest revision that this code knows."""
        return self.revisions[-1]

    def applied(self, connection: Connection) -> str | None:
        """The revision of the database; None: it is empty."""
        context = MigrationContext.configure(connection, opts={"version_table": self.version_table})
        return context.get_current_revision()

    def state(self, applied: str | None) -> SchemaState:
        """What a database at revision ``applied`` is to this code."""
        if applied is None:
            return "empty"
        known = self.revisions
        if applied not in known:
            return "newer"
        return "current" if applied == known[-1] else "older"

    def upgrade(self, connection: Connection, revision: str = "head") -> str | None:
        """Bring the database to ``revision`` in the transaction of ``connection``, while all other processes
        that want to wait. A newer database stays as it is.

        Returns:
            the revision it was at before; None: it was empty.

        Raises:
            SchemaRefused: what is there is not what its revision says.
        """
        self._take_turn(connection)
        before = self.applied(connection)
        if self.state(before) != "newer":
            config = self._config()
            config.attributes["connection"] = connection
            command.upgrade(config, revision)
        if revision == "head":
            self.check_tables(connection)
        return before

    def check(self, connection: Connection) -> None:
        """Raises SchemaRefused unless this code can work on the database."""
        applied = self.applied(connection)
        if self.state(applied) in ("empty", "older"):
            raise SchemaRefused(self.lacking(applied), revision=applied, needed=self.head)
        self.check_tables(connection)

    def lacking(self, applied: str | None) -> str:
        """Why a database at revision ``applied`` will not do, and the mend."""
        there = "is empty" if applied is None else f"is at revision {applied}"
        return (
            f"the {self.name} database {there}, and this release needs revision {self.head} or newer: run "
            "`python -m bedplate_services.migrations upgrade` with the same settings (`bedplate up` does it "
            "by itself)."
        )

    def check_tables(self, connection: Connection) -> None:
        """Refuse a database that lacks tables or columns that this code reads, whatever its revision says.

        A commit before the first release made it, or a later release than the next one.

        Raises:
            SchemaRefused: ``missing`` names what it lacks.
        """
        inspector = inspect(connection)
        there = set(inspector.get_table_names())
        declared = self.metadata.tables
        missing = sorted(declared.keys() - there)
        for name in sorted(declared.keys() & there):
            columns = {column["name"] for column in inspector.get_columns(name)}
            missing += [
                f"{name}.{column.name}" for column in declared[name].columns if column.name not in columns
            ]
        if not missing:
            return
        lacks = ", ".join(missing)
        if self.state(self.applied(connection)) == "newer":
            raise SchemaRefused(
                f"the {self.name} database was made by a later release, which took away what this one reads "
                f"({lacks}): go back by one release at a time, or restore the backup taken before.",
                missing=missing,
            )
        raise SchemaRefused(
            f"the {self.name}'s database was made by an earlier version of Bedplate (it lacks {lacks}), "
            "and before 1.0 such databases are not converted: start with an empty data directory "
            "or database, or go on with the version that made this one.",
            missing=missing,
        )

    def _take_turn(self, connection: Connection) -> None:
        """On SQLite BEGIN IMMEDIATE has done it."""
        if connection.dialect.name != "postgresql":
            return
        # Others may migrate for long, and a migration takes as long as it takes.
        connection.execute(text("SET LOCAL lock_timeout = 0"))
        connection.execute(text("SET LOCAL statement_timeout = 0"))
        connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": self.lock})
        connection.execute(text(f"SET LOCAL lock_timeout = '{DDL_LOCK_SECONDS}s'"))

    def _config(self) -> Config:
        config = Config()
        config.set_main_option("script_location", str(self.scripts))
        return config
