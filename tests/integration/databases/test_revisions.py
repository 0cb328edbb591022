"""Every revision that a database out there may be at: its data live through the upgrade, and the release
before finds in the schema after it what it relies on (schema_changes.py says what that is).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.operations import BatchOperations, Operations
from sqlalchemy import (
    JSON,
    Column,
    Connection,
    ForeignKeyConstraint,
    MetaData,
    Table,
    column,
    select,
    text,
    update,
)
from sqlalchemy import table as table_named
from sqlalchemy.orm import Session

from bedplate.databases import Database, SchemaRefused
from bedplate_registry.database import HISTORY as REGISTRY
from bedplate_registry.database import Database as RegistryDatabase
from bedplate_store.database import HISTORY as STORE
from bedplate_store.database import Database as StoreDatabase

from .conftest import NewDatabase
from .schema_changes import schema_of, taken_away

DATABASES: dict[str, type[RegistryDatabase] | type[StoreDatabase]] = {
    "registry": RegistryDatabase,
    "store": StoreDatabase,
}
REVISIONS = [(history.name, revision) for history in (REGISTRY, STORE) for revision in history.revisions]
STEPS = [
    (history.name, before, after)
    for history in (REGISTRY, STORE)
    for before, after in zip(history.revisions, history.revisions[1:], strict=False)
]
NO_LONGER_READ: dict[tuple[str, str], list[str]] = {}
"""What a revision takes away, by database and revision, once a whole release has neither read nor written it:
docs/adr/0023-migrations.md. Say in a comment which release that was."""

Rows = dict[str, list[dict[str, Any]]]


def tables_of(connection: Connection) -> list[Table]:
    reflected = MetaData()
    reflected.reflect(connection)
    return [table for table in reflected.sorted_tables if not table.name.endswith("_revision")]


def value(column: Column[Any], number: int) -> Any:
    if isinstance(column.type, JSON):
        return {"number": number, "text": "Blåbær"}
    kind = column.type.python_type
    if kind is str:
        return f"{column.name}-{number}"[: column.type.length]  # type: ignore[attr-defined]
    return {bool: True, int: number, float: number + 0.5}[kind]


def row_of(table: Table, number: int, filled: Rows) -> dict[str, Any]:
    """The ``number``-th row of a table, every column of it filled, with references to rows that are there."""
    row = {column.name: value(column, number) for column in table.columns}
    for constraint in table.constraints:
        if isinstance(constraint, ForeignKeyConstraint):
            target = constraint.referred_table.name
            for element in constraint.elements:
                own, other = element.parent.name, element.column.name
                if target != table.name:
                    row[own] = filled[target][number - 1][other]
                elif element.parent.nullable:
                    row[own] = None
    return row


def fill(connection: Connection) -> Rows:
    """Two rows in every table; returns them."""
    filled: Rows = {}
    for table in tables_of(connection):
        filled[table.name] = []
        for number in (1, 2):
            filled[table.name].append(row_of(table, number, filled))
            connection.execute(table.insert(), filled[table.name][-1])
    return filled


def found(connection: Connection, filled: Rows) -> Rows:
    """What the tables hold of the rows that were filled in, column by column."""
    tables = {table.name: table for table in tables_of(connection)}
    rows: Rows = {}
    for name, expected in filled.items():
        columns = [tables[name].c[column] for column in expected[0]]
        all_rows = [dict(row) for row in connection.execute(select(*columns)).mappings()]
        rows[name] = [row for row in all_rows if row in expected]
    return rows


@pytest.mark.parametrize(("name", "revision"), REVISIONS)
def test_data_of_every_revision_live_through_the_upgrade(
    new_database: NewDatabase, name: str, revision: str
) -> None:
    database: Database[Any, Any] = DATABASES[name](new_database())
    database.migrate(revision)
    with database.engine.begin() as connection:
        filled = fill(connection)
    assert len(filled) > 5
    assert all(len(rows) == 2 for rows in filled.values())
    assert database.migrate() == revision
    with database.engine.connect() as connection:
        assert found(connection, filled) == filled
        context = MigrationContext.configure(
            connection, opts={"version_table": database.history.version_table}
        )
        assert compare_metadata(context, database.history.metadata) == []
    database.check_schema()
    with database.read() as session:
        read_with_todays_code(session, database, filled)
    database.close()


def read_with_todays_code(session: Session, database: Database[Any, Any], filled: Rows) -> None:
    """The classes that declare the tables load what was written before they were what they are."""
    declared = database.history.metadata.tables
    for name in filled.keys() & declared.keys():
        assert len(session.execute(select(declared[name])).all()) >= 2


@pytest.mark.parametrize(("name", "before", "after"), STEPS)
def test_the_release_before_finds_what_it_relies_on_in_the_schema_after(
    new_database: NewDatabase, name: str, before: str, after: str
) -> None:
    database: Database[Any, Any] = DATABASES[name](new_database())
    database.migrate(before)
    with database.engine.connect() as connection:
        old = schema_of(connection)
    database.migrate(after)
    with database.engine.connect() as connection:
        new = schema_of(connection)
    assert old != new
    assert taken_away(old, new) == NO_LONGER_READ.get((name, after), [])
    database.close()


@pytest.mark.parametrize(
    ("change", "taken"),
    [
        ("ALTER TABLE teams ADD COLUMN colour TEXT", []),
        ("ALTER TABLE teams ADD COLUMN rank INTEGER NOT NULL DEFAULT 0", []),
        ("CREATE TABLE colours (name TEXT NOT NULL)", []),
        ("CREATE INDEX ix_teams_description ON teams (description)", []),
        ("DROP TABLE serving_changes", ["serving_changes"]),
        ("ALTER TABLE teams DROP COLUMN description", ["teams.description"]),
        (
            "ALTER TABLE teams RENAME COLUMN description TO about",
            ["teams.about is demanded", "teams.description"],
        ),
        ("CREATE UNIQUE INDEX uq_teams_d ON teams (description)", ["teams has one row for each description"]),
        ("ALTER TABLE teams ADD COLUMN rank INTEGER CHECK (rank > 0)", []),
        ("ALTER TABLE teams ADD COLUMN lead TEXT REFERENCES surfaces (name)", []),
    ],
)
def test_the_check_sees_what_would_break_the_release_before(
    new_database: NewDatabase, change: str, taken: list[str]
) -> None:
    database = RegistryDatabase(new_database())
    database.migrate()
    with database.engine.begin() as connection:
        old = schema_of(connection)
        connection.execute(text(change))
        assert taken_away(old, schema_of(connection)) == taken
    database.close()


@pytest.mark.parametrize(
    ("constrain", "taken"),
    [
        (
            lambda teams: teams.create_foreign_key("fk_d", "surfaces", ["description"], ["name"]),
            "teams.description refers to surfaces.name",
        ),
        (
            lambda teams: teams.create_check_constraint("ck_d", "length(description) > 0"),
            "teams demands length(description) > 0",
        ),
    ],
    ids=["foreign key", "check"],
)
def test_the_check_sees_a_new_rule_for_columns_that_the_release_before_writes(
    new_database: NewDatabase, constrain: Callable[[BatchOperations], None], taken: str
) -> None:
    database = RegistryDatabase(new_database())
    database.migrate()
    with database.engine.begin() as connection:
        old = schema_of(connection)
        # SQLite adds no constraint to a table: Alembic makes the table anew.
        with Operations(MigrationContext.configure(connection)).batch_alter_table("teams") as teams:
            constrain(teams)
        assert taken_away(old, schema_of(connection)) == [taken]
    database.close()


@pytest.mark.parametrize("name", DATABASES)
def test_a_newer_schema_is_fine_as_long_as_it_holds_what_this_release_reads(
    new_database: NewDatabase, name: str
) -> None:
    database: Database[Any, Any] = DATABASES[name](new_database())
    database.migrate()
    table = next(iter(sorted(database.history.metadata.tables)))
    version = table_named(database.history.version_table, column("version_num"))
    with database.engine.begin() as connection:
        connection.execute(update(version).values(version_num="9999"))
        connection.execute(text(f"ALTER TABLE {table} ADD COLUMN of_a_later_release TEXT"))
    assert database.schema_state() == "newer"
    database.check_schema()
    assert database.migrate() == "9999"
    assert database.applied_revision() == "9999"
    with database.engine.begin() as connection:
        connection.execute(text(f"ALTER TABLE {table} RENAME TO gone"))
    with pytest.raises(SchemaRefused, match="made by a later release, which took away") as refused:
        database.check_schema()
    assert refused.value.context["missing"] == [table]
    database.close()


@pytest.mark.parametrize(
    ("name", "change", "lacks"),
    [
        ("registry", "ALTER TABLE teams DROP COLUMN description", "teams.description"),
        ("registry", "DROP TABLE evaluation_reads", "evaluation_reads"),
        ("store", "ALTER TABLE spaces DROP COLUMN wanted_until", "spaces.wanted_until"),
        ("store", "DROP TABLE outbox", "outbox"),
    ],
)
def test_a_database_of_an_early_commit_is_refused_with_what_it_lacks(
    new_database: NewDatabase, name: str, change: str, lacks: str
) -> None:
    database: Database[Any, Any] = DATABASES[name](new_database())
    database.migrate()
    with database.engine.begin() as connection:
        connection.execute(text(change))
    for meets in (database.migrate, database.check_schema):
        with pytest.raises(SchemaRefused, match="empty data directory") as refused:
            meets()
        assert refused.value.context["missing"] == [lacks]
    database.close()


@pytest.mark.parametrize("name", DATABASES)
def test_an_empty_database_is_refused_with_the_command_that_migrates_it(
    new_database: NewDatabase, name: str
) -> None:
    database: Database[Any, Any] = DATABASES[name](new_database())
    for meets in (database.check_revision, database.check_schema):
        with pytest.raises(SchemaRefused, match=r"is empty.*bedplate_services\.migrations upgrade"):
            meets()
    database.migrate()
    database.check_revision()
    database.close()
