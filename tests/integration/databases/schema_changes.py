"""What a revision takes away from the release before it, seen by its effect on a database."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Inspector, inspect


@dataclass(frozen=True)
class Table:
    """What a release that knows this table relies on.

    Attributes:
        columns: type by name.
        demanded: columns that every insert must name: not nullable and without a default.
        unique: sets of columns whose values are unique, the primary key among them.
        references: foreign keys: own columns, and in words the table and columns that they point at.
        checks: CHECK constraints, as the database spells them.
    """

    columns: dict[str, str]
    demanded: frozenset[str]
    unique: frozenset[frozenset[str]]
    references: dict[frozenset[str], str]
    checks: frozenset[str]


Schema = dict[str, Table]


def schema_of(connection: Connection) -> Schema:
    """All tables but Alembic's own."""
    inspector = inspect(connection)
    names = [name for name in inspector.get_table_names() if not name.endswith("_revision")]
    return {name: _table(inspector, name) for name in names}


def taken_away(before: Schema, after: Schema) -> list[str]:
    """What the release before relies on and does not find any more, in words; empty: nothing.

    Its queries name tables and columns, its inserts leave out columns it does not know, and its rows may
    break a rule it does not know: of uniqueness, a foreign key or a check on columns that it does. Not seen:
    a trigger, and a new reference to its rows, which would keep it from deleting them.
    """
    found = [name for name in before if name not in after]
    for name in before.keys() & after.keys():
        found += [f"{name}{change}" for change in _changes(before[name], after[name])]
    return sorted(found)


def _changes(before: Table, after: Table) -> list[str]:
    changed = [f".{column}" for column in before.columns if column not in after.columns]
    changed += [
        f".{column} is {after.columns[column]}"
        for column, kind in before.columns.items()
        if after.columns.get(column, kind) != kind
    ]
    changed += [f".{column} is demanded" for column in after.demanded - before.demanded]
    changed += [f" has one row for each {', '.join(sorted(key))}" for key in after.unique - before.unique]
    # Columns that it does not know are null or have their default in its rows: a rule for them alone holds.
    changed += [
        f".{', '.join(sorted(columns))} refers to {target}"
        for columns, target in after.references.items()
        if before.references.get(columns) != target and columns & before.columns.keys()
    ]
    changed += [
        f" demands {check}"
        for check in after.checks - before.checks
        if before.columns.keys() & set(re.findall(r"\w+", check))
    ]
    return changed


def _table(inspector: Inspector, name: str) -> Table:
    columns = inspector.get_columns(name)
    key = inspector.get_pk_constraint(name)["constrained_columns"]
    unique = [each["column_names"] for each in inspector.get_unique_constraints(name)]
    unique += [each["column_names"] for each in inspector.get_indexes(name) if each["unique"]]
    return Table(
        columns={column["name"]: str(column["type"]) for column in columns},
        demanded=frozenset(column["name"] for column in columns if _is_demanded(column, key)),
        unique=frozenset(frozenset(str(column) for column in each) for each in [key, *unique]),
        references={
            frozenset(
                each["constrained_columns"]
            ): f"{each['referred_table']}.{', '.join(each['referred_columns'])}"
            for each in inspector.get_foreign_keys(name)
        },
        checks=frozenset(each["sqltext"] for each in inspector.get_check_constraints(name)),
    )


def _is_demanded(column: Any, key: list[str]) -> bool:
    counted = key == [column["name"]] and str(column["type"]) in ("INTEGER", "BIGINT")
    return not column["nullable"] and column.get("default") is None and not counted
