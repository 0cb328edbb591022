"""The migrations make exactly the tables that the code declares."""

from __future__ import annotations

from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from bedplate_store.database import Database
from bedplate_store.tables.base import Base
from bedplate_store.tables.jobs import JobRow
from bedplate_store.tables.records import EventRow
from bedplate_store.tables.spaces import SpaceRow


def test_migrations_and_metadata_agree(database: Database) -> None:
    for row in (EventRow, JobRow, SpaceRow):  # all three modules have registered their tables
        assert row.__tablename__ in Base.metadata.tables
    with database.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"version_table": "store_revision"})
        assert compare_metadata(context, Base.metadata) == []
