"""Events, items, the impression log's index, outcomes and training sets.

Their times are plain int64 microseconds UTC: they come and go in bulk, where a conversion per row would cost
more than the row.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import JSON, BigInteger, Double, ForeignKey, Index, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from bedplate_store.tables.base import Base, key_text


class SequenceRow(Base):
    """A counter that only transactions advance, so its order is the order of commits.

    A database sequence would hand out numbers that commit in another order, and a reader that remembers
    "everything up to 41" could miss 40.
    """

    __tablename__ = "sequences"

    name: Mapped[str] = mapped_column(key_text(63), primary_key=True)
    value: Mapped[int] = mapped_column(BigInteger)


class EventRow(Base):
    """One event; clustered by user and time, because every read is a range of one user's timeline."""

    __tablename__ = "events"
    __table_args__ = {"sqlite_with_rowid": False}  # noqa: RUF012 - SQLAlchemy reads it, nobody writes it

    user: Mapped[str] = mapped_column(key_text(256), primary_key=True)
    event_time: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    sequence: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    item: Mapped[str] = mapped_column(key_text(256))
    action: Mapped[str] = mapped_column(key_text(64))
    surface: Mapped[str] = mapped_column(key_text(63))
    label: Mapped[float | None] = mapped_column(Double)
    features: Mapped[str | None] = mapped_column(Text)


class TimelineRow(Base):
    """The span of one user's events on one surface: order is checked against it."""

    __tablename__ = "timelines"
    __table_args__ = {"sqlite_with_rowid": False}  # noqa: RUF012 - SQLAlchemy reads it, nobody writes it

    user: Mapped[str] = mapped_column(key_text(256), primary_key=True)
    surface: Mapped[str] = mapped_column(key_text(63), primary_key=True)
    first_time: Mapped[int] = mapped_column(BigInteger)
    last_time: Mapped[int] = mapped_column(BigInteger)


class ItemRow(Base):
    """A catalogue entry; ``as_of`` keeps a late event's old features from replacing newer ones."""

    __tablename__ = "items"
    __table_args__ = {"sqlite_with_rowid": False}  # noqa: RUF012 - SQLAlchemy reads it, nobody writes it

    key: Mapped[str] = mapped_column(key_text(256), primary_key=True)
    features: Mapped[str] = mapped_column(Text)
    as_of: Mapped[int] = mapped_column(BigInteger)


class LogSegmentRow(Base):
    """One sealed, content-addressed segment of the impression log."""

    __tablename__ = "log_segments"
    __table_args__ = (
        UniqueConstraint("object_key"),
        Index(None, "surface", "served_first", "served_last"),
    )

    sequence: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    surface: Mapped[str] = mapped_column(key_text(63))
    object_key: Mapped[str] = mapped_column(key_text(256))
    sha256: Mapped[str] = mapped_column(key_text(64))
    served_first: Mapped[int] = mapped_column(BigInteger)
    served_last: Mapped[int] = mapped_column(BigInteger)
    rows: Mapped[int] = mapped_column(BigInteger)
    requests: Mapped[int] = mapped_column(BigInteger)
    bytes: Mapped[int] = mapped_column(BigInteger)
    versions: Mapped[list[str]] = mapped_column(JSON)  # "core@7", sorted
    sealed_at: Mapped[int] = mapped_column(BigInteger)


class LoggedRequestRow(Base):
    """Every sealed request of a surface and the digest of its record: the same request is logged once."""

    __tablename__ = "logged_requests"
    __table_args__ = {"sqlite_with_rowid": False}  # noqa: RUF012 - SQLAlchemy reads it, nobody writes it

    surface: Mapped[str] = mapped_column(key_text(63), primary_key=True)
    request_id: Mapped[str] = mapped_column(key_text(64), primary_key=True)
    digest: Mapped[str] = mapped_column(key_text(64))
    log_sequence: Mapped[int] = mapped_column(BigInteger)


class OutcomeRow(Base):
    """The label of one task of one impression."""

    __tablename__ = "outcomes"
    __table_args__ = {"sqlite_with_rowid": False}  # noqa: RUF012 - SQLAlchemy reads it, nobody writes it

    surface: Mapped[str] = mapped_column(key_text(63), primary_key=True)
    request_id: Mapped[str] = mapped_column(key_text(64), primary_key=True)
    item: Mapped[str] = mapped_column(key_text(256), primary_key=True)
    task: Mapped[str] = mapped_column(key_text(63), primary_key=True)
    label: Mapped[float] = mapped_column(Double)
    outcome_time: Mapped[int] = mapped_column(BigInteger)
    sequence: Mapped[int] = mapped_column(BigInteger)


class TrainingSetRow(Base):
    """The definition of a training set, the sequences it is pinned to, and what was built."""

    __tablename__ = "training_sets"
    __table_args__ = (Index(None, "surface", "created_at"),)

    id: Mapped[str] = mapped_column(key_text(64), primary_key=True)
    name: Mapped[str] = mapped_column(key_text(63))
    surface: Mapped[str] = mapped_column(key_text(63))
    team: Mapped[str] = mapped_column(key_text(63))
    definition: Mapped[dict[str, Any]] = mapped_column(JSON)  # TrainingSetCreate, attribution_end filled in
    pins: Mapped[dict[str, int]] = mapped_column(JSON)  # event, outcome and log_segment sequence
    job_id: Mapped[str] = mapped_column(key_text(64), ForeignKey("jobs.id"))
    rows: Mapped[int | None] = mapped_column(BigInteger)
    requests: Mapped[int | None] = mapped_column(BigInteger)
    unlabelled: Mapped[int | None] = mapped_column(BigInteger)
    incomplete: Mapped[int | None] = mapped_column(BigInteger)
    bytes: Mapped[int | None] = mapped_column(BigInteger)
    digest: Mapped[str | None] = mapped_column(key_text(64))
    manifest_key: Mapped[str | None] = mapped_column(key_text(256))
    created_at: Mapped[int] = mapped_column(BigInteger)
