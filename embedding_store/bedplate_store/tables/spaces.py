"""Spaces, the snapshots their readers see, and the writes that came after a snapshot."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import JSON, BigInteger, ForeignKey, Index, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from bedplate_store.tables.base import Base, UtcTime, big_id, key_text


class SpaceRow(Base):
    """One embedding output of one version.

    ``snapshot`` is the number readers see (None: nothing published); ``sequence`` is the last write's, and
    ``written_rows`` counts the rows and tombstones of all writes. They change only under the row's lock, so
    whoever sees a sequence sees every write up to it. Until ``wanted_until`` readers open the space ahead of
    the first request: an alias is about to move here.
    """

    __tablename__ = "spaces"
    __table_args__ = (UniqueConstraint("foundation", "version", "space"),)

    id: Mapped[int] = mapped_column(big_id(), primary_key=True)
    foundation: Mapped[str] = mapped_column(key_text(63))
    version: Mapped[int]
    space: Mapped[str] = mapped_column(key_text(63))
    dim: Mapped[int]
    dtype: Mapped[str] = mapped_column(key_text(16))
    metric: Mapped[str] = mapped_column(key_text(16))
    entity: Mapped[str | None] = mapped_column(key_text(16))
    key_type: Mapped[str] = mapped_column(key_text(16))
    attributes: Mapped[dict[str, str]] = mapped_column(JSON)
    team: Mapped[str] = mapped_column(key_text(63))
    snapshot: Mapped[int | None]
    sequence: Mapped[int] = mapped_column(BigInteger)
    wanted_until: Mapped[datetime | None] = mapped_column(UtcTime)
    written_rows: Mapped[int] = mapped_column(BigInteger)
    created_at: Mapped[datetime] = mapped_column(UtcTime)
    updated_at: Mapped[datetime] = mapped_column(UtcTime)


class SnapshotRow(Base):
    """An immutable set of segments and their index; it holds every write up to ``covers_sequence``.

    ``covers_rows`` counts the rows and tombstones of those writes. ``specification`` is what the index was
    asked to be, which the next one follows; null: searches scan.
    """

    __tablename__ = "snapshots"

    space_id: Mapped[int] = mapped_column(ForeignKey("spaces.id"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    digest: Mapped[str] = mapped_column(key_text(64))
    segments: Mapped[list[dict[str, Any]]] = mapped_column(JSON(none_as_null=True))
    index: Mapped[dict[str, Any] | None] = mapped_column("index_document", JSON(none_as_null=True))
    rows: Mapped[int] = mapped_column("row_count", BigInteger)
    bytes: Mapped[int] = mapped_column("byte_count", BigInteger)
    specification: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    compression: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    covers_sequence: Mapped[int] = mapped_column(BigInteger)
    covers_rows: Mapped[int] = mapped_column(BigInteger)
    job: Mapped[str | None] = mapped_column(key_text(64))
    published_at: Mapped[datetime] = mapped_column(UtcTime)
    superseded_at: Mapped[datetime | None] = mapped_column(UtcTime)
    collected_at: Mapped[datetime | None] = mapped_column(UtcTime)


class WriteRow(Base):
    """An acknowledged upsert or delete: one small segment, newer than every write with a lower sequence."""

    __tablename__ = "writes"
    __table_args__ = (Index(None, "digest"),)

    space_id: Mapped[int] = mapped_column(ForeignKey("spaces.id"), primary_key=True)
    sequence: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    digest: Mapped[str] = mapped_column(key_text(64))
    segment: Mapped[dict[str, Any]] = mapped_column(JSON(none_as_null=True))
    rows: Mapped[int] = mapped_column("row_count", BigInteger)
    written_at: Mapped[datetime] = mapped_column(UtcTime)


class ReaderRow(Base):
    """A process that serves spaces, and what it has open: ``spaces`` maps ``core@7/item`` to ``OpenSpace``.

    One row for each process, written whole, so that nobody sees half of what a process says. A process
    that is silent for a while counts as dead. ``node`` is the name of a store node, which serves the shards
    assigned to it.
    """

    __tablename__ = "readers"
    __table_args__ = (Index(None, "seen_at"),)

    id: Mapped[str] = mapped_column(key_text(64), primary_key=True)
    service: Mapped[str] = mapped_column(key_text(63))
    process: Mapped[str] = mapped_column(key_text(256))
    url: Mapped[str] = mapped_column(key_text(256))
    follows: Mapped[bool]
    node: Mapped[str | None] = mapped_column(key_text(63))
    spaces: Mapped[dict[str, dict[str, Any]]] = mapped_column(JSON)
    started_at: Mapped[datetime] = mapped_column(UtcTime)
    seen_at: Mapped[datetime] = mapped_column(UtcTime)
