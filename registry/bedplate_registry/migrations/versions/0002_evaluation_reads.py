"""Which spaces an evaluated model read, and how they were stored."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

KEY = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    op.create_table(
        "evaluation_reads",
        sa.Column("evaluation_id", sa.Integer(), nullable=False),
        sa.Column("space", KEY, nullable=False),
        sa.Column("storage", sa.String(length=16), nullable=False),
        sa.Column("snapshot", sa.Integer(), nullable=True),
        sa.ForeignKeyConstraint(
            ["evaluation_id"], ["evaluations.id"], name=op.f("fk_evaluation_reads_evaluation_id")
        ),
        sa.PrimaryKeyConstraint("evaluation_id", "space", name=op.f("pk_evaluation_reads")),
    )
    op.create_index(op.f("ix_evaluation_reads_space"), "evaluation_reads", ["space"], unique=False)


def downgrade() -> None:
    op.drop_table("evaluation_reads")
