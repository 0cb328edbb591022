"""Experts, their pinned versions, which version serves, and what was measured of them."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import JSON, BigInteger, ForeignKey, ForeignKeyConstraint, Integer, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from bedplate_registry.tables.base import Base, KeyText, NameText, UtcTime


class ExpertRow(Base):
    __tablename__ = "experts"

    name: Mapped[str] = mapped_column(NameText, primary_key=True)
    surface: Mapped[str] = mapped_column(NameText, ForeignKey("surfaces.name"), index=True)
    description: Mapped[str] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(UtcTime)


class ExpertVersionRow(Base):
    """``pinned_*`` are all set (trained on that version's space) or all null (a one-stage model)."""

    __tablename__ = "expert_versions"
    __table_args__ = (
        ForeignKeyConstraint(
            ["pinned_foundation", "pinned_number"], ["versions.foundation", "versions.number"]
        ),
    )

    expert: Mapped[str] = mapped_column(NameText, ForeignKey("experts.name"), primary_key=True)
    number: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    checkpoint_id: Mapped[str] = mapped_column(String(32), ForeignKey("checkpoints.id"), unique=True)
    pinned_foundation: Mapped[str | None] = mapped_column(NameText)
    pinned_number: Mapped[int | None] = mapped_column(Integer)
    pinned_space: Mapped[str | None] = mapped_column(NameText)
    training_set: Mapped[str | None] = mapped_column(Text)


class ServingRow(Base):
    __tablename__ = "serving"
    __table_args__ = (
        ForeignKeyConstraint(["expert", "version"], ["expert_versions.expert", "expert_versions.number"]),
    )

    expert: Mapped[str] = mapped_column(NameText, primary_key=True)
    version: Mapped[int] = mapped_column(Integer)
    moved_at: Mapped[datetime] = mapped_column(UtcTime)


class ServingChangeRow(Base):
    """One row for each move ever made; never updated."""

    __tablename__ = "serving_changes"

    id: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=True)
    expert: Mapped[str] = mapped_column(NameText, ForeignKey("serving.expert"), index=True)
    from_version: Mapped[int | None] = mapped_column(Integer)
    to_version: Mapped[int] = mapped_column(Integer)
    reason: Mapped[str] = mapped_column(Text)
    moved_by: Mapped[str] = mapped_column(Text)
    moved_at: Mapped[datetime] = mapped_column(UtcTime)


class EvaluationRow(Base):
    __tablename__ = "evaluations"

    id: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=True)
    subject: Mapped[str] = mapped_column(NameText, index=True)
    surface: Mapped[str] = mapped_column(NameText, ForeignKey("surfaces.name"), index=True)
    team: Mapped[str] = mapped_column(NameText, ForeignKey("teams.name"))
    task: Mapped[str] = mapped_column(Text)
    window_start: Mapped[datetime] = mapped_column(UtcTime)
    window_end: Mapped[datetime] = mapped_column(UtcTime)
    rows: Mapped[int] = mapped_column(BigInteger)
    metrics: Mapped[dict[str, Any]] = mapped_column(JSON)
    variant: Mapped[str] = mapped_column(Text)
    seed: Mapped[int | None] = mapped_column(BigInteger)
    created_at: Mapped[datetime] = mapped_column(UtcTime)


class EvaluationReadRow(Base):
    """A space that the evaluated model read: ``core@7/item``, and as which dtype."""

    __tablename__ = "evaluation_reads"

    evaluation_id: Mapped[int] = mapped_column(Integer, ForeignKey("evaluations.id"), primary_key=True)
    space: Mapped[str] = mapped_column(KeyText, primary_key=True, index=True)
    storage: Mapped[str] = mapped_column(String(16))
    snapshot: Mapped[int | None] = mapped_column(Integer)
