"""The job ledger and its outbox."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import JSON, BigInteger, ForeignKey, Index, Integer, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from bedplate_store.tables.base import Base, UtcTime, big_id, key_text


class JobRow(Base):
    __tablename__ = "jobs"
    __table_args__ = (
        UniqueConstraint("team", "kind", "idempotency_key"),
        Index(None, "created_at", "id"),
    )

    id: Mapped[str] = mapped_column(key_text(96), primary_key=True)
    kind: Mapped[str] = mapped_column(key_text(64))
    subject: Mapped[str] = mapped_column(key_text(256))
    team: Mapped[str] = mapped_column(key_text(63))
    state: Mapped[str] = mapped_column(key_text(16))
    params: Mapped[dict[str, Any]] = mapped_column(JSON)
    unit: Mapped[str] = mapped_column(key_text(16))
    idempotency_key: Mapped[str | None] = mapped_column(key_text(128))
    max_attempts: Mapped[int] = mapped_column(Integer)
    origin: Mapped[dict[str, str] | None] = mapped_column(JSON(none_as_null=True))
    error: Mapped[str | None] = mapped_column(Text)
    result: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    created_at: Mapped[datetime] = mapped_column(UtcTime)
    started_at: Mapped[datetime | None] = mapped_column(UtcTime)
    finished_at: Mapped[datetime | None] = mapped_column(UtcTime)


class StageRow(Base):
    __tablename__ = "job_stages"
    __table_args__ = {"sqlite_with_rowid": False}  # noqa: RUF012 - SQLAlchemy reads it, nobody writes it

    job_id: Mapped[str] = mapped_column(key_text(64), ForeignKey("jobs.id"), primary_key=True)
    position: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    name: Mapped[str] = mapped_column(key_text(64))


class PartitionRow(Base):
    """One piece of work. ``state``: waiting (an earlier stage runs), due, leased, done, dead, cancelled."""

    __tablename__ = "job_partitions"
    __table_args__ = (
        UniqueConstraint("job_id", "stage_position", "ordinal"),
        Index(None, "state", "lease_expires_at", "due_at"),
    )

    id: Mapped[str] = mapped_column(key_text(96), primary_key=True)
    job_id: Mapped[str] = mapped_column(key_text(64), ForeignKey("jobs.id"))
    stage_position: Mapped[int] = mapped_column(Integer)
    ordinal: Mapped[int] = mapped_column(Integer)
    params: Mapped[dict[str, Any]] = mapped_column(JSON)
    units: Mapped[int] = mapped_column(BigInteger)
    done: Mapped[int] = mapped_column(BigInteger, default=0)
    state: Mapped[str] = mapped_column(key_text(16))
    attempt: Mapped[int] = mapped_column(Integer, default=0)
    fencing_token: Mapped[int] = mapped_column(BigInteger, default=0)
    lease_owner: Mapped[str | None] = mapped_column(key_text(256))
    lease_expires_at: Mapped[datetime | None] = mapped_column(UtcTime)
    due_at: Mapped[datetime | None] = mapped_column(UtcTime)
    queued_at: Mapped[datetime | None] = mapped_column(UtcTime)
    sends: Mapped[int] = mapped_column(Integer, default=0)
    result: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    error: Mapped[str | None] = mapped_column(Text)


class OutboxRow(Base):
    """A message that leaves after the commit; the same message waits at most once."""

    __tablename__ = "outbox"
    __table_args__ = (UniqueConstraint("task", "args"), Index(None, "available_at", "id"))

    id: Mapped[int] = mapped_column(big_id(), primary_key=True)
    task: Mapped[str] = mapped_column(key_text(64))
    args: Mapped[str] = mapped_column(key_text(512))  # JSON; text, so that equal messages are equal
    generation: Mapped[int] = mapped_column(Integer, default=0)
    available_at: Mapped[datetime] = mapped_column(UtcTime)
