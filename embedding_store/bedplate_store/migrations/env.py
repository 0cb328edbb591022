"""Alembic's entry point; runs inside the transaction that Database.migrate opened."""

from alembic import context

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=None,
    version_table="store_revision",
    render_as_batch=True,
)
context.run_migrations()
