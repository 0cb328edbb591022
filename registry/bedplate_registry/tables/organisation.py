"""Who owns what: teams, their tokens, the surfaces."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import ForeignKey, Integer, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from bedplate_registry.tables.base import Base, NameText, UtcTime


class TeamRow(Base):
    __tablename__ = "teams"

    name: Mapped[str] = mapped_column(NameText, primary_key=True)
    description: Mapped[str] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(UtcTime)


class TokenRow(Base):
    """``digest`` is the SHA-256 of the secret; the secret itself is nowhere."""

    __tablename__ = "tokens"

    id: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=True)
    team: Mapped[str] = mapped_column(NameText, ForeignKey("teams.name"), index=True)
    role: Mapped[str] = mapped_column(String(16))
    description: Mapped[str] = mapped_column(Text)
    digest: Mapped[str] = mapped_column(String(64), unique=True)
    created_at: Mapped[datetime] = mapped_column(UtcTime)
    revoked_at: Mapped[datetime | None] = mapped_column(UtcTime)


class SurfaceRow(Base):
    __tablename__ = "surfaces"

    name: Mapped[str] = mapped_column(NameText, primary_key=True)
    team: Mapped[str] = mapped_column(NameText, ForeignKey("teams.name"), index=True)
    description: Mapped[str] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(UtcTime)
