"""Checkpoints (what both foundation and expert versions are made of) and the parts of their uploads."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import JSON, BigInteger, ForeignKey, Integer, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from bedplate_registry.tables.base import Base, KeyText, NameText, UtcTime


class CheckpointRow(Base):
    """``state`` goes draft, ready, retired; once ready, nothing but the state ever changes."""

    __tablename__ = "checkpoints"

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    state: Mapped[str] = mapped_column(String(16), index=True)
    signature: Mapped[dict[str, Any]] = mapped_column(JSON)
    files: Mapped[list[dict[str, Any]]] = mapped_column(JSON)
    metrics: Mapped[dict[str, float]] = mapped_column(JSON)
    description: Mapped[str] = mapped_column(Text)
    digest: Mapped[str | None] = mapped_column(String(64))
    created_at: Mapped[datetime] = mapped_column(UtcTime)
    finalised_at: Mapped[datetime | None] = mapped_column(UtcTime)
    retired_at: Mapped[datetime | None] = mapped_column(UtcTime)


class UploadPartRow(Base):
    """The row says which object holds the part; a part sent again gets a new object and moves the row."""

    __tablename__ = "upload_parts"

    checkpoint_id: Mapped[str] = mapped_column(String(32), ForeignKey("checkpoints.id"), primary_key=True)
    file: Mapped[str] = mapped_column(NameText, primary_key=True)
    part: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    object_key: Mapped[str] = mapped_column(KeyText)
    bytes: Mapped[int] = mapped_column(BigInteger)
