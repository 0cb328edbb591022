"""The schemas of both databases: ``python -m bedplate_services.migrations upgrade | wait | current``.

In production this is what migrates: services and workers only look whether the schema is new enough.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from pydantic import ValidationError
from sqlalchemy.exc import SQLAlchemyError

from bedplate.databases import Database, SchemaRefused
from bedplate.databases.settings import DatabaseSettings
from bedplate_registry.database import Database as RegistryDatabase
from bedplate_store.database import Database as StoreDatabase

_POLL_SECONDS = 1.0
_EXAMPLES = """
example:
  export BEDPLATE_REGISTRY_DATABASE_URL=postgresql+psycopg://bedplate:...@db:5432/registry
  export BEDPLATE_STORE_DATABASE_URL=postgresql+psycopg://bedplate:...@db:5432/store
  python -m bedplate_services.migrations upgrade
  python -m bedplate_services.migrations wait --timeout-seconds 300
"""

Databases = Sequence[Database[Any, Any]]
Say = Callable[[str], None]


def main(arguments: Sequence[str]) -> int:
    """Do one command; the exit status."""
    options = _parser().parse_args(arguments)
    try:
        settings = DatabaseSettings()
    except ValidationError as error:
        return _fail(f"{error}\nSet BEDPLATE_REGISTRY_DATABASE_URL and BEDPLATE_STORE_DATABASE_URL.")
    databases = open_databases(settings)
    try:
        if options.command == "wait":
            return wait(databases, options.timeout_seconds)
        if options.command == "current":
            return current(databases)
        if options.timeout_seconds and (status := wait_for_answers(databases, options.timeout_seconds)):
            return status
        return upgrade(databases)
    except SchemaRefused as error:
        return _fail(error.detail)
    except SQLAlchemyError as error:
        return _fail(f"a database cannot be reached: {reason(error)}")
    finally:
        for database in databases:
            database.close()


def open_databases(settings: DatabaseSettings) -> Databases:
    """Registry and store; connects to nothing yet."""
    return (
        RegistryDatabase(settings.registry_database_url, settings.database_limits),
        StoreDatabase(settings.store_database_url, settings.database_limits),
    )


def upgrade(databases: Databases, say: Say = print) -> int:
    """Bring each database to the newest revision; safe when several processes do it at once.

    Raises:
        SchemaRefused: a database is not what its revision says.
    """
    for database in databases:
        before = database.migrate()
        after = database.applied_revision()
        note = ", newer than this release knows: left as it is" if database.schema_state() == "newer" else ""
        moved = f"{before or 'empty'} -> {after}" if before != after else f"is at {after}"
        say(f"{database.history.name}: {moved}{note}")
    return 0


def current(databases: Databases, say: Say = print) -> int:
    """Tell where each database stands."""
    for database in databases:
        applied = database.applied_revision()
        state = database.history.state(applied)
        say(f"{database.history.name}: {applied or 'none'} ({state}; this release: {database.history.head})")
    return 0


def wait(
    databases: Databases,
    timeout_seconds: float,
    say: Say = print,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> int:
    """Return when this release can work on both databases, and tell what is waited for; 1: not in time."""
    status = _wait_for(lambda: _lacking(databases), timeout_seconds, say, clock, sleep)
    if status == 0:
        say("both databases are ready")
    return status


def wait_for_answers(
    databases: Databases,
    timeout_seconds: float,
    say: Say = print,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> int:
    """Return when both databases answer, whatever their schema; 1: not in time."""
    return _wait_for(lambda: _silent(databases), timeout_seconds, say, clock, sleep)


def _wait_for(
    lacking: Callable[[], str | None],
    timeout_seconds: float,
    say: Say,
    clock: Callable[[], float],
    sleep: Callable[[float], None],
) -> int:
    """Return when nothing is lacking any more; each reason is told once."""
    deadline = clock() + timeout_seconds
    told = ""
    while (missing := lacking()) is not None:
        if clock() >= deadline:
            return _fail(f"gave up after {timeout_seconds:g} s: {missing}")
        if missing != told:
            say(f"waiting: {missing}")
            told = missing
        sleep(_POLL_SECONDS)
    return 0


def _lacking(databases: Databases) -> str | None:
    for database in databases:
        try:
            database.check_schema()
        except SchemaRefused as refused:
            return refused.detail
        except SQLAlchemyError as error:
            return _no_answer(database, error)
    return None


def _silent(databases: Databases) -> str | None:
    for database in databases:
        try:
            database.applied_revision()
        except SQLAlchemyError as error:
            return _no_answer(database, error)
    return None


def _no_answer(database: Database[Any, Any], error: SQLAlchemyError) -> str:
    return f"the {database.history.name} database does not answer: {reason(error)}"


def reason(error: SQLAlchemyError) -> str:
    """The first line of what the driver says; URLs, and the passwords in them, are not part of it."""
    cause = getattr(error, "orig", None) or error
    return str(cause).strip().partition("\n")[0]


def _fail(message: str) -> int:
    print(message, file=sys.stderr)
    return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bedplate_services.migrations",
        description="The schemas of the registry's and the store's databases.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    upgrading = commands.add_parser(
        "upgrade", help="bring both to this release's revision, one process at a time"
    )
    upgrading.add_argument(
        "--timeout-seconds",
        type=float,
        default=0.0,
        help="wait so long for both to answer; default: not at all",
    )
    commands.add_parser("current", help="tell where both stand")
    waiting = commands.add_parser(
        "wait", help="return when both are at this release's revision, or at one that a newer release made"
    )
    waiting.add_argument("--timeout-seconds", type=float, default=300.0, help="default: %(default)g")
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
