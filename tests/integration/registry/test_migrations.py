from __future__ import annotations

from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from bedplate_registry.database import Database
from bedplate_registry.tables import Base


def test_migrations_and_metadata_agree(database):
    with database.engine.connect() as connection:
        context = MigrationContext.configure(
            connection, opts={"version_table": "registry_revision", "compare_type": True}
        )
        assert compare_metadata(context, Base.metadata) == []


def test_comparison_would_see_a_missing_table(empty_database_url):
    empty = Database(empty_database_url)
    with empty.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"version_table": "registry_revision"})
        assert compare_metadata(context, Base.metadata)
    empty.close()


def test_of_several_that_migrate_at_once_one_does(empty_database_url, concurrently):
    databases = [Database(empty_database_url) for _ in range(4)]
    found = concurrently([database.migrate for database in databases])
    newest = databases[0].history.head
    assert sorted(found, key=str) == [newest, newest, newest, None]
    for database in databases:
        database.close()
