"""Times as the tables and the log hold them: int64 microseconds since 1970-01-01 UTC."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from bedplate.errors import InvalidRequest

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def microseconds(time: datetime) -> int:
    """Microseconds since the epoch, exact.

    Raises:
        InvalidRequest: the time has no zone.
    """
    if time.tzinfo is None:
        raise InvalidRequest(f"The time {time.isoformat()} needs a zone, e.g. 2026-11-22T10:00:00Z.")
    return (time - _EPOCH) // _MICROSECOND


def instant(time_us: int) -> datetime:
    """The aware UTC datetime of ``time_us`` microseconds since the epoch."""
    return _EPOCH + timedelta(microseconds=int(time_us))
