"""Which store process serves which shard, and every move of one."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy.orm import Mapped, mapped_column

from bedplate_store.tables.base import Base, UtcTime, big_id, key_text


class ShardAssignmentRow(Base):
    """The store node that serves a shard of ``space``; ``*``: of every space without a row of its own."""

    __tablename__ = "shard_assignments"

    space: Mapped[str] = mapped_column(key_text(160), primary_key=True)
    shard: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    node: Mapped[str] = mapped_column(key_text(63))
    assigned_at: Mapped[datetime] = mapped_column(UtcTime)


class ShardMoveRow(Base):
    """An assignment that was made, moved or taken back; None: nobody."""

    __tablename__ = "shard_moves"

    id: Mapped[int] = mapped_column(big_id(), primary_key=True)
    space: Mapped[str] = mapped_column(key_text(160))
    shard: Mapped[int]
    from_node: Mapped[str | None] = mapped_column(key_text(63))
    to_node: Mapped[str | None] = mapped_column(key_text(63))
    moved_by: Mapped[str] = mapped_column(key_text(63))
    moved_at: Mapped[datetime] = mapped_column(UtcTime)
