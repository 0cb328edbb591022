"""Checks that the wire documents cannot express, and access to rows that names what is missing or taken."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, TypeVar

from sqlalchemy.exc import IntegrityError

from bedplate.errors import AlreadyExists, InvalidRequest, NotFound
from bedplate_registry.database import ReadSession, WriteSession

RowT = TypeVar("RowT")

MAX_NUMBER = 2**31 - 1
_INT64 = range(-(2**63), 2**63)


def check_text(**fields: str | None) -> None:
    """Raise InvalidRequest where a text holds NUL, which PostgreSQL cannot store."""
    for name, value in fields.items():
        if value is not None and "\x00" in value:
            raise InvalidRequest(f"{name} holds a NUL character; remove it.", field=name)


def check_metrics(metrics: Mapping[str, float]) -> None:
    """Raise InvalidRequest where a metric is NaN or infinite: JSON has no such number."""
    for name, value in metrics.items():
        check_text(metric=name)
        if not math.isfinite(value):
            raise InvalidRequest(
                f"metric {name!r} is {value}; leave out what could not be measured.", field=name
            )


def check_int64(**fields: int | None) -> None:
    """Raise InvalidRequest where an integer does not fit in 64 bits."""
    for name, value in fields.items():
        if value is not None and value not in _INT64:
            raise InvalidRequest(f"{name} does not fit in 64 bits.", field=name)


def fetch(session: ReadSession, row: type[RowT], key: Any, what: str, *, lock: bool = False) -> RowT:
    """The row with this primary key; ``lock`` holds it until the transaction ends.

    Raises:
        NotFound: there is none; ``what`` names it in the answer.
    """
    parts = key if isinstance(key, tuple) else (key,)
    found = None
    if all(_storable(part) for part in parts):
        found = session.get(row, key, with_for_update=lock or None, populate_existing=lock)
    if found is None:
        raise NotFound(f"There is no {what}.")
    return found


def insert(session: WriteSession, row: object, what: str, **context: Any) -> None:
    """Insert one row now.

    Raises:
        AlreadyExists: its key is taken.
    """
    if not try_insert(session, row):
        raise AlreadyExists(f"There is {what} already; choose another name or use that one.", **context)


def try_insert(session: WriteSession, *rows: object) -> bool:
    """Insert the rows in order, or none of them: False where a key is taken (the transaction goes on)."""
    try:
        with session.begin_nested():
            for row in rows:
                session.add(row)
                session.flush()
    except IntegrityError:
        return False
    return True


def _storable(part: object) -> bool:
    if isinstance(part, str):
        return "\x00" not in part
    return not isinstance(part, int) or 0 <= part <= MAX_NUMBER
