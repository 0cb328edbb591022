"""INSERT ... ON CONFLICT, which SQLite and PostgreSQL share but SQLAlchemy offers per dialect only."""

from __future__ import annotations

from typing import Any

from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.dialects.sqlite import Insert

from bedplate_store.database import WriteSession


def conflict_insert(session: WriteSession, entity: Any) -> Insert:
    """An INSERT into ``entity`` with ``on_conflict_do_update`` and ``on_conflict_do_nothing``."""
    if session.get_bind().dialect.name == "postgresql":
        # The two classes have the methods used here in common, but no base class that declares them.
        insert: Any = postgresql.insert(entity)
        return insert  # type: ignore[no-any-return]  # see above
    return sqlite.insert(entity)
