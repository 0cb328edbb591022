"""The migrations make exactly the tables that the code declares."""

from __future__ import annotations

from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import text

from bedplate.errors import Conflict
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


@pytest.mark.parametrize(
    ("change", "lacks"),
    [("ALTER TABLE spaces DROP COLUMN wanted_until", "spaces.wanted_until"), ("DROP TABLE jobs", "jobs")],
)
def test_a_database_of_an_earlier_commit_is_refused_with_what_it_lacks(
    tmp_path: Path, change: str, lacks: str
) -> None:
    database = Database(f"sqlite:///{tmp_path / 'store.db'}")
    database.migrate()
    database.migrate()  # its own is taken
    with database.write() as session:
        session.execute(text(change))
    with pytest.raises(Conflict, match="empty data directory") as refused:
        database.migrate()
    assert refused.value.context["missing"] == [lacks]
    database.close()
