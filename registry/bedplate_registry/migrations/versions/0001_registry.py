"""Teams, tokens, surfaces, foundations, versions, aliases, experts, serving and evaluations."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

# A migration is history: it spells its types out instead of importing today's.
NAME = sa.String(128).with_variant(sa.String(128, collation="C"), "postgresql")
KEY = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
TIME = sa.BigInteger()  # microseconds since 1970 UTC


def upgrade() -> None:
    _create_organisation()
    _create_checkpoints()
    _create_foundations()
    _create_aliases()
    _create_experts()
    _create_serving()
    _create_evaluations()


def downgrade() -> None:
    for table in (
        "evaluations",
        "serving_changes",
        "serving",
        "expert_versions",
        "experts",
        "alias_changes",
        "aliases",
        "versions",
        "foundations",
        "upload_parts",
        "checkpoints",
        "surfaces",
        "tokens",
        "teams",
    ):
        op.drop_table(table)


def _create_organisation() -> None:
    op.create_table(
        "teams",
        sa.Column("name", NAME, nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_teams")),
    )
    op.create_table(
        "tokens",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("team", NAME, nullable=False),
        sa.Column("role", sa.String(length=16), nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("revoked_at", TIME, nullable=True),
        sa.ForeignKeyConstraint(["team"], ["teams.name"], name=op.f("fk_tokens_team")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_tokens")),
        sa.UniqueConstraint("digest", name=op.f("uq_tokens_digest")),
    )
    op.create_index(op.f("ix_tokens_team"), "tokens", ["team"], unique=False)
    op.create_table(
        "surfaces",
        sa.Column("name", NAME, nullable=False),
        sa.Column("team", NAME, nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.ForeignKeyConstraint(["team"], ["teams.name"], name=op.f("fk_surfaces_team")),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_surfaces")),
    )
    op.create_index(op.f("ix_surfaces_team"), "surfaces", ["team"], unique=False)


def _create_checkpoints() -> None:
    op.create_table(
        "checkpoints",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("signature", sa.JSON(), nullable=False),
        sa.Column("files", sa.JSON(), nullable=False),
        sa.Column("metrics", sa.JSON(), nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=True),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("finalised_at", TIME, nullable=True),
        sa.Column("retired_at", TIME, nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_checkpoints")),
    )
    op.create_index(op.f("ix_checkpoints_state"), "checkpoints", ["state"], unique=False)
    op.create_table(
        "upload_parts",
        sa.Column("checkpoint_id", sa.String(length=32), nullable=False),
        sa.Column("file", NAME, nullable=False),
        sa.Column("part", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("object_key", KEY, nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["checkpoint_id"], ["checkpoints.id"], name=op.f("fk_upload_parts_checkpoint_id")
        ),
        sa.PrimaryKeyConstraint("checkpoint_id", "file", "part", name=op.f("pk_upload_parts")),
    )


def _create_foundations() -> None:
    op.create_table(
        "foundations",
        sa.Column("name", NAME, nullable=False),
        sa.Column("team", NAME, nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.ForeignKeyConstraint(["team"], ["teams.name"], name=op.f("fk_foundations_team")),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_foundations")),
    )
    op.create_index(op.f("ix_foundations_team"), "foundations", ["team"], unique=False)
    op.create_table(
        "versions",
        sa.Column("foundation", NAME, nullable=False),
        sa.Column("number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("checkpoint_id", sa.String(length=32), nullable=False),
        sa.Column("parent", sa.Integer(), nullable=True),
        sa.Column("training_window_start", TIME, nullable=True),
        sa.Column("training_window_end", TIME, nullable=True),
        sa.ForeignKeyConstraint(
            ["checkpoint_id"], ["checkpoints.id"], name=op.f("fk_versions_checkpoint_id")
        ),
        sa.ForeignKeyConstraint(
            ["foundation", "parent"],
            ["versions.foundation", "versions.number"],
            name=op.f("fk_versions_foundation_parent"),
        ),
        sa.ForeignKeyConstraint(["foundation"], ["foundations.name"], name=op.f("fk_versions_foundation")),
        sa.PrimaryKeyConstraint("foundation", "number", name=op.f("pk_versions")),
        sa.UniqueConstraint("checkpoint_id", name=op.f("uq_versions_checkpoint_id")),
    )


def _create_aliases() -> None:
    op.create_table(
        "aliases",
        sa.Column("foundation", NAME, nullable=False),
        sa.Column("alias", NAME, nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("moved_at", TIME, nullable=False),
        sa.ForeignKeyConstraint(
            ["foundation", "version"],
            ["versions.foundation", "versions.number"],
            name=op.f("fk_aliases_foundation_version"),
        ),
        sa.PrimaryKeyConstraint("foundation", "alias", name=op.f("pk_aliases")),
    )
    op.create_table(
        "alias_changes",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("foundation", NAME, nullable=False),
        sa.Column("alias", NAME, nullable=False),
        sa.Column("from_version", sa.Integer(), nullable=True),
        sa.Column("to_version", sa.Integer(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("moved_by", sa.Text(), nullable=False),
        sa.Column("moved_at", TIME, nullable=False),
        sa.ForeignKeyConstraint(
            ["foundation", "alias"],
            ["aliases.foundation", "aliases.alias"],
            name=op.f("fk_alias_changes_foundation_alias"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_alias_changes")),
    )
    op.create_index(op.f("ix_alias_changes_foundation"), "alias_changes", ["foundation"], unique=False)


def _create_experts() -> None:
    op.create_table(
        "experts",
        sa.Column("name", NAME, nullable=False),
        sa.Column("surface", NAME, nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.ForeignKeyConstraint(["surface"], ["surfaces.name"], name=op.f("fk_experts_surface")),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_experts")),
    )
    op.create_index(op.f("ix_experts_surface"), "experts", ["surface"], unique=False)
    op.create_table(
        "expert_versions",
        sa.Column("expert", NAME, nullable=False),
        sa.Column("number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("checkpoint_id", sa.String(length=32), nullable=False),
        sa.Column("pinned_foundation", NAME, nullable=True),
        sa.Column("pinned_number", sa.Integer(), nullable=True),
        sa.Column("pinned_space", NAME, nullable=True),
        sa.Column("training_set", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(
            ["checkpoint_id"], ["checkpoints.id"], name=op.f("fk_expert_versions_checkpoint_id")
        ),
        sa.ForeignKeyConstraint(["expert"], ["experts.name"], name=op.f("fk_expert_versions_expert")),
        sa.ForeignKeyConstraint(
            ["pinned_foundation", "pinned_number"],
            ["versions.foundation", "versions.number"],
            name=op.f("fk_expert_versions_pinned_foundation_pinned_number"),
        ),
        sa.PrimaryKeyConstraint("expert", "number", name=op.f("pk_expert_versions")),
        sa.UniqueConstraint("checkpoint_id", name=op.f("uq_expert_versions_checkpoint_id")),
    )


def _create_serving() -> None:
    op.create_table(
        "serving",
        sa.Column("expert", NAME, nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("moved_at", TIME, nullable=False),
        sa.ForeignKeyConstraint(
            ["expert", "version"],
            ["expert_versions.expert", "expert_versions.number"],
            name=op.f("fk_serving_expert_version"),
        ),
        sa.PrimaryKeyConstraint("expert", name=op.f("pk_serving")),
    )
    op.create_table(
        "serving_changes",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("expert", NAME, nullable=False),
        sa.Column("from_version", sa.Integer(), nullable=True),
        sa.Column("to_version", sa.Integer(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("moved_by", sa.Text(), nullable=False),
        sa.Column("moved_at", TIME, nullable=False),
        sa.ForeignKeyConstraint(["expert"], ["serving.expert"], name=op.f("fk_serving_changes_expert")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_serving_changes")),
    )
    op.create_index(op.f("ix_serving_changes_expert"), "serving_changes", ["expert"], unique=False)


def _create_evaluations() -> None:
    op.create_table(
        "evaluations",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("subject", NAME, nullable=False),
        sa.Column("surface", NAME, nullable=False),
        sa.Column("team", NAME, nullable=False),
        sa.Column("task", sa.Text(), nullable=False),
        sa.Column("window_start", TIME, nullable=False),
        sa.Column("window_end", TIME, nullable=False),
        sa.Column("rows", sa.BigInteger(), nullable=False),
        sa.Column("metrics", sa.JSON(), nullable=False),
        sa.Column("variant", sa.Text(), nullable=False),
        sa.Column("seed", sa.BigInteger(), nullable=True),
        sa.Column("created_at", TIME, nullable=False),
        sa.ForeignKeyConstraint(["surface"], ["surfaces.name"], name=op.f("fk_evaluations_surface")),
        sa.ForeignKeyConstraint(["team"], ["teams.name"], name=op.f("fk_evaluations_team")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_evaluations")),
    )
    op.create_index(op.f("ix_evaluations_subject"), "evaluations", ["subject"], unique=False)
    op.create_index(op.f("ix_evaluations_surface"), "evaluations", ["surface"], unique=False)
