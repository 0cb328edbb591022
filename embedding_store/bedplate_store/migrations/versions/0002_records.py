"""Events, the impression log, outcomes, training sets and the job ledger."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

# A migration is history: it spells its types out instead of importing today's.
TIME = sa.BigInteger()  # microseconds since 1970 UTC
ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def key_text(length: int) -> sa.types.TypeEngine[str]:
    """Compares bytewise on every database."""
    return sa.String(length).with_variant(sa.String(length, collation="C"), "postgresql")


def _create_timelines() -> None:
    op.create_table(
        "events",
        sa.Column("user", key_text(256), nullable=False),
        sa.Column("event_time", sa.BigInteger(), nullable=False),
        sa.Column("sequence", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("item", key_text(256), nullable=False),
        sa.Column("action", key_text(64), nullable=False),
        sa.Column("surface", key_text(63), nullable=False),
        sa.Column("label", sa.Double(), nullable=True),
        sa.Column("features", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("user", "event_time", "sequence", name="pk_events"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "timelines",
        sa.Column("user", key_text(256), nullable=False),
        sa.Column("surface", key_text(63), nullable=False),
        sa.Column("first_time", sa.BigInteger(), nullable=False),
        sa.Column("last_time", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("user", "surface", name="pk_timelines"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "items",
        sa.Column("key", key_text(256), nullable=False),
        sa.Column("features", sa.Text(), nullable=False),
        sa.Column("as_of", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("key", name="pk_items"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "sequences",
        sa.Column("name", key_text(63), nullable=False),
        sa.Column("value", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_sequences"),
    )
    sequences = sa.table("sequences", sa.column("name", sa.String), sa.column("value", sa.BigInteger))
    names = ("event", "outcome", "log_segment")
    op.bulk_insert(sequences, [{"name": name, "value": 0} for name in names])


def _create_log() -> None:
    op.create_table(
        "log_segments",
        sa.Column("sequence", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("surface", key_text(63), nullable=False),
        sa.Column("object_key", key_text(256), nullable=False),
        sa.Column("sha256", key_text(64), nullable=False),
        sa.Column("served_first", sa.BigInteger(), nullable=False),
        sa.Column("served_last", sa.BigInteger(), nullable=False),
        sa.Column("rows", sa.BigInteger(), nullable=False),
        sa.Column("requests", sa.BigInteger(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("versions", sa.JSON(), nullable=False),
        sa.Column("sealed_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("sequence", name="pk_log_segments"),
        sa.UniqueConstraint("object_key", name="uq_log_segments_object_key"),
    )
    op.create_index(
        "ix_log_segments_surface_served_first_served_last",
        "log_segments",
        ["surface", "served_first", "served_last"],
    )
    op.create_table(
        "logged_requests",
        sa.Column("surface", key_text(63), nullable=False),
        sa.Column("request_id", key_text(64), nullable=False),
        sa.Column("digest", key_text(64), nullable=False),
        sa.Column("log_sequence", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("surface", "request_id", name="pk_logged_requests"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "outcomes",
        sa.Column("surface", key_text(63), nullable=False),
        sa.Column("request_id", key_text(64), nullable=False),
        sa.Column("item", key_text(256), nullable=False),
        sa.Column("task", key_text(63), nullable=False),
        sa.Column("label", sa.Double(), nullable=False),
        sa.Column("outcome_time", sa.BigInteger(), nullable=False),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("surface", "request_id", "item", "task", name="pk_outcomes"),
        sqlite_with_rowid=False,
    )


def _create_ledger() -> None:
    op.create_table(
        "jobs",
        sa.Column("id", key_text(96), nullable=False),
        sa.Column("kind", key_text(64), nullable=False),
        sa.Column("subject", key_text(256), nullable=False),
        sa.Column("team", key_text(63), nullable=False),
        sa.Column("state", key_text(16), nullable=False),
        sa.Column("params", sa.JSON(), nullable=False),
        sa.Column("unit", key_text(16), nullable=False),
        sa.Column("idempotency_key", key_text(128), nullable=True),
        sa.Column("max_attempts", sa.Integer(), nullable=False),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("result", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("started_at", TIME, nullable=True),
        sa.Column("finished_at", TIME, nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_jobs"),
        sa.UniqueConstraint("team", "kind", "idempotency_key", name="uq_jobs_team_kind_idempotency_key"),
    )
    op.create_index("ix_jobs_created_at_id", "jobs", ["created_at", "id"])
    op.create_table(
        "job_stages",
        sa.Column("job_id", key_text(64), nullable=False),
        sa.Column("position", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("name", key_text(64), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name="fk_job_stages_job_id"),
        sa.PrimaryKeyConstraint("job_id", "position", name="pk_job_stages"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "job_partitions",
        sa.Column("id", key_text(96), nullable=False),
        sa.Column("job_id", key_text(64), nullable=False),
        sa.Column("stage_position", sa.Integer(), nullable=False),
        sa.Column("ordinal", sa.Integer(), nullable=False),
        sa.Column("params", sa.JSON(), nullable=False),
        sa.Column("units", sa.BigInteger(), nullable=False),
        sa.Column("done", sa.BigInteger(), nullable=False),
        sa.Column("state", key_text(16), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("fencing_token", sa.BigInteger(), nullable=False),
        sa.Column("lease_owner", key_text(256), nullable=True),
        sa.Column("lease_expires_at", TIME, nullable=True),
        sa.Column("due_at", TIME, nullable=True),
        sa.Column("queued_at", TIME, nullable=True),
        sa.Column("sends", sa.Integer(), nullable=False),
        sa.Column("result", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name="fk_job_partitions_job_id"),
        sa.PrimaryKeyConstraint("id", name="pk_job_partitions"),
        sa.UniqueConstraint(
            "job_id", "stage_position", "ordinal", name="uq_job_partitions_job_id_stage_position_ordinal"
        ),
    )
    op.create_index(
        "ix_job_partitions_state_lease_expires_at_due_at",
        "job_partitions",
        ["state", "lease_expires_at", "due_at"],
    )


def _create_outbox_and_training_sets() -> None:
    op.create_table(
        "outbox",
        sa.Column("id", ID, nullable=False),
        sa.Column("task", key_text(64), nullable=False),
        sa.Column("args", key_text(512), nullable=False),
        sa.Column("generation", sa.Integer(), nullable=False),
        sa.Column("available_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_outbox"),
        sa.UniqueConstraint("task", "args", name="uq_outbox_task_args"),
    )
    op.create_index("ix_outbox_available_at_id", "outbox", ["available_at", "id"])
    op.create_table(
        "training_sets",
        sa.Column("id", key_text(64), nullable=False),
        sa.Column("name", key_text(63), nullable=False),
        sa.Column("surface", key_text(63), nullable=False),
        sa.Column("team", key_text(63), nullable=False),
        sa.Column("definition", sa.JSON(), nullable=False),
        sa.Column("pins", sa.JSON(), nullable=False),
        sa.Column("job_id", key_text(64), nullable=False),
        sa.Column("rows", sa.BigInteger(), nullable=True),
        sa.Column("requests", sa.BigInteger(), nullable=True),
        sa.Column("unlabelled", sa.BigInteger(), nullable=True),
        sa.Column("incomplete", sa.BigInteger(), nullable=True),
        sa.Column("bytes", sa.BigInteger(), nullable=True),
        sa.Column("digest", key_text(64), nullable=True),
        sa.Column("manifest_key", key_text(256), nullable=True),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name="fk_training_sets_job_id"),
        sa.PrimaryKeyConstraint("id", name="pk_training_sets"),
    )
    op.create_index("ix_training_sets_surface_created_at", "training_sets", ["surface", "created_at"])


def upgrade() -> None:
    _create_timelines()
    _create_log()
    _create_ledger()
    _create_outbox_and_training_sets()


def downgrade() -> None:
    for table in (
        "training_sets",
        "outbox",
        "job_partitions",
        "job_stages",
        "jobs",
        "outcomes",
        "logged_requests",
        "log_segments",
        "sequences",
        "items",
        "timelines",
        "events",
    ):
        op.drop_table(table)
