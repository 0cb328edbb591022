"""Whether a database holds the tables that this code declares.

Before 1.0 a revision may be edited in place. A database that ran it before is at the newest revision already,
so migrating does nothing, and the first query would fail with "no such column".
"""

from __future__ import annotations

from sqlalchemy import Connection, inspect

from bedplate.errors import Conflict
from bedplate_store.tables import jobs, records, shards, spaces
from bedplate_store.tables.base import Base

_DECLARING = (jobs, records, shards, spaces)
"""The modules that declare tables; importing them registers these."""


def check_schema(connection: Connection) -> None:
    """Refuse a database that an earlier state of the migrations made.

    Raises:
        Conflict: it lacks tables or columns; the message names them.
    """
    inspector = inspect(connection)
    there = set(inspector.get_table_names())
    missing = sorted(Base.metadata.tables.keys() - there)
    for name in sorted(Base.metadata.tables.keys() & there):
        columns = {column["name"] for column in inspector.get_columns(name)}
        missing += [
            f"{name}.{column.name}"
            for column in Base.metadata.tables[name].columns
            if column.name not in columns
        ]
    if missing:
        raise Conflict(
            "the store's database was made by an earlier version of Bedplate "
            f"(it lacks {', '.join(missing)}), "
            "and before 1.0 such databases are not converted: start with an empty data directory "
            "or database, or go on with the version that made this one.",
            missing=missing,
        )
