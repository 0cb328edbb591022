"""Foundations, their versions, and the aliases that point at versions."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import ForeignKey, ForeignKeyConstraint, Integer, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from bedplate_registry.tables.base import Base, NameText, UtcTime


class FoundationRow(Base):
    __tablename__ = "foundations"

    name: Mapped[str] = mapped_column(NameText, primary_key=True)
    team: Mapped[str] = mapped_column(NameText, ForeignKey("teams.name"), index=True)
    description: Mapped[str] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(UtcTime)


class VersionRow(Base):
    __tablename__ = "versions"
    __table_args__ = (
        ForeignKeyConstraint(["foundation", "parent"], ["versions.foundation", "versions.number"]),
    )

    foundation: Mapped[str] = mapped_column(NameText, ForeignKey("foundations.name"), primary_key=True)
    number: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    checkpoint_id: Mapped[str] = mapped_column(String(32), ForeignKey("checkpoints.id"), unique=True)
    parent: Mapped[int | None] = mapped_column(Integer)
    training_window_start: Mapped[datetime | None] = mapped_column(UtcTime)
    training_window_end: Mapped[datetime | None] = mapped_column(UtcTime)


class AliasRow(Base):
    __tablename__ = "aliases"
    __table_args__ = (
        ForeignKeyConstraint(["foundation", "version"], ["versions.foundation", "versions.number"]),
    )

    foundation: Mapped[str] = mapped_column(NameText, primary_key=True)
    alias: Mapped[str] = mapped_column(NameText, primary_key=True)
    version: Mapped[int] = mapped_column(Integer)
    moved_at: Mapped[datetime] = mapped_column(UtcTime)


class AliasChangeRow(Base):
    """One row for each move ever made; never updated."""

    __tablename__ = "alias_changes"
    __table_args__ = (ForeignKeyConstraint(["foundation", "alias"], ["aliases.foundation", "aliases.alias"]),)

    id: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=True)
    foundation: Mapped[str] = mapped_column(NameText, index=True)
    alias: Mapped[str] = mapped_column(NameText)
    from_version: Mapped[int | None] = mapped_column(Integer)
    to_version: Mapped[int] = mapped_column(Integer)
    reason: Mapped[str] = mapped_column(Text)
    moved_by: Mapped[str] = mapped_column(Text)
    moved_at: Mapped[datetime] = mapped_column(UtcTime)
