"""Counters advanced inside a transaction; advancing one also takes its lock until the commit."""

from __future__ import annotations

from typing import Literal

from sqlalchemy import select, update

from bedplate_store.database import ReadSession, WriteSession
from bedplate_store.tables.records import SequenceRow

SequenceName = Literal["event", "outcome", "log_segment"]
"""Migration 0002 creates one row for each."""


def advance(session: WriteSession, name: SequenceName, count: int) -> int:
    """Take ``count`` numbers and return the first; other transactions wait here until this one ends."""
    statement = (
        update(SequenceRow)
        .where(SequenceRow.name == name)
        .values(value=SequenceRow.value + count)
        .returning(SequenceRow.value)
        .execution_options(synchronize_session=False)
    )
    last: int = session.execute(statement).scalar_one()
    return last - count + 1


def current(session: ReadSession, name: SequenceName) -> int:
    """The last number taken; 0 before the first."""
    value: int = session.execute(select(SequenceRow.value).where(SequenceRow.name == name)).scalar_one()
    return value
