"""Spaces, snapshots and writes, and the processes that read them."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

# A migration is history: it spells its types out instead of importing today's.
TIME = sa.BigInteger()  # microseconds since 1970 UTC
ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def key_text(length: int) -> sa.types.TypeEngine[str]:
    """Compares bytewise on every database."""
    return sa.String(length).with_variant(sa.String(length, collation="C"), "postgresql")


def upgrade() -> None:
    op.create_table(
        "spaces",
        sa.Column("id", ID, nullable=False),
        sa.Column("foundation", key_text(63), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("space", key_text(63), nullable=False),
        sa.Column("dim", sa.Integer(), nullable=False),
        sa.Column("dtype", key_text(16), nullable=False),
        sa.Column("metric", key_text(16), nullable=False),
        sa.Column("entity", key_text(16), nullable=True),
        sa.Column("key_type", key_text(16), nullable=False),
        sa.Column("attributes", sa.JSON(), nullable=False),
        sa.Column("team", key_text(63), nullable=False),
        sa.Column("snapshot", sa.Integer(), nullable=True),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.Column("wanted_until", TIME, nullable=True),
        sa.Column("written_rows", sa.BigInteger(), nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("updated_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_spaces"),
        sa.UniqueConstraint("foundation", "version", "space", name="uq_spaces_foundation_version_space"),
    )
    op.create_table(
        "snapshots",
        sa.Column("space_id", ID, nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("digest", key_text(64), nullable=False),
        sa.Column("segments", sa.JSON(), nullable=False),
        sa.Column("index_document", sa.JSON(), nullable=True),
        sa.Column("row_count", sa.BigInteger(), nullable=False),
        sa.Column("byte_count", sa.BigInteger(), nullable=False),
        sa.Column("specification", sa.JSON(), nullable=True),
        sa.Column("compression", sa.JSON(), nullable=True),
        sa.Column("covers_sequence", sa.BigInteger(), nullable=False),
        sa.Column("covers_rows", sa.BigInteger(), nullable=False),
        sa.Column("job", key_text(64), nullable=True),
        sa.Column("published_at", TIME, nullable=False),
        sa.Column("superseded_at", TIME, nullable=True),
        sa.Column("collected_at", TIME, nullable=True),
        sa.PrimaryKeyConstraint("space_id", "number", name="pk_snapshots"),
        sa.ForeignKeyConstraint(["space_id"], ["spaces.id"], name="fk_snapshots_space_id"),
    )
    op.create_table(
        "writes",
        sa.Column("space_id", ID, nullable=False),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.Column("digest", key_text(64), nullable=False),
        sa.Column("segment", sa.JSON(), nullable=False),
        sa.Column("row_count", sa.BigInteger(), nullable=False),
        sa.Column("written_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("space_id", "sequence", name="pk_writes"),
        sa.ForeignKeyConstraint(["space_id"], ["spaces.id"], name="fk_writes_space_id"),
    )
    op.create_index("ix_writes_digest", "writes", ["digest"])
    op.create_table(
        "readers",
        sa.Column("id", key_text(64), nullable=False),
        sa.Column("service", key_text(63), nullable=False),
        sa.Column("process", key_text(256), nullable=False),
        sa.Column("url", key_text(256), nullable=False),
        sa.Column("follows", sa.Boolean(), nullable=False),
        sa.Column("node", key_text(63), nullable=True),
        sa.Column("spaces", sa.JSON(), nullable=False),
        sa.Column("started_at", TIME, nullable=False),
        sa.Column("seen_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_readers"),
    )
    op.create_index("ix_readers_seen_at", "readers", ["seen_at"])
    op.create_table(
        "shard_assignments",
        sa.Column("space", key_text(160), nullable=False),
        sa.Column("shard", sa.Integer(), nullable=False),
        sa.Column("node", key_text(63), nullable=False),
        sa.Column("assigned_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("space", "shard", name="pk_shard_assignments"),
    )
    op.create_table(
        "shard_moves",
        sa.Column("id", ID, nullable=False),
        sa.Column("space", key_text(160), nullable=False),
        sa.Column("shard", sa.Integer(), nullable=False),
        sa.Column("from_node", key_text(63), nullable=True),
        sa.Column("to_node", key_text(63), nullable=True),
        sa.Column("moved_by", key_text(63), nullable=False),
        sa.Column("moved_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_shard_moves"),
    )


def downgrade() -> None:
    op.drop_table("shard_moves")
    op.drop_table("shard_assignments")
    op.drop_index("ix_readers_seen_at", table_name="readers")
    op.drop_table("readers")
    op.drop_index("ix_writes_digest", table_name="writes")
    op.drop_table("writes")
    op.drop_table("snapshots")
    op.drop_table("spaces")
