"""Reading timelines: a user's events strictly before a moment, and whole stretches for training."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from sqlalchemy import Select, bindparam, func, select

from bedplate.wire.store import Event, Timeline
from bedplate_store.database import ReadSession
from bedplate_store.key_ranges import KeyRange, cut_key_ranges, keys_at
from bedplate_store.tables.records import EventRow, TimelineRow
from bedplate_store.times import instant, microseconds

EVENT_SCHEMA = pa.schema(
    [
        pa.field("user", pa.string(), nullable=False),
        pa.field("item", pa.string(), nullable=False),
        pa.field("action", pa.string(), nullable=False),
        pa.field("surface", pa.string(), nullable=False),
        pa.field("event_time", pa.timestamp("us", tz="UTC"), nullable=False),
        pa.field("label", pa.float32()),
    ]
)
"""What :func:`scan` yields."""

_CHUNK_ROWS = 65_536
_Query = Select[*tuple[Any, ...]]
_EVENTS = EventRow.__table__.c  # plain columns: a query for each user is too many for the mapper's overhead
_COLUMNS = (
    _EVENTS.item,
    _EVENTS.action,
    _EVENTS.surface,
    _EVENTS.event_time,
    _EVENTS.label,
    _EVENTS.features,
)


@dataclass(frozen=True, slots=True)
class TimelineColumns:
    """n events of one user, oldest first; equal times in the order they were accepted.

    Attributes:
        item, action, surface: lists of n strings.
        event_time_us: int64 microseconds UTC [n].
        label: float32 [n], NaN where an event has none.
        features: the items' features as JSON text as they came with the event, or None, [n].
    """

    user: str
    item: list[str]
    action: list[str]
    surface: list[str]
    event_time_us: NDArray[np.int64]
    label: NDArray[np.float32]
    features: list[str | None]

    def __len__(self) -> int:
        return len(self.item)

    def to_wire(self, at: datetime) -> Timeline:
        """The JSON document of this timeline as read at ``at``."""
        events = [
            Event.model_construct(
                user=self.user,
                item=self.item[row],
                action=self.action[row],
                surface=self.surface[row],
                event_time=instant(int(self.event_time_us[row])),
                label=None if np.isnan(self.label[row]) else float(self.label[row]),
                features=None if (text := self.features[row]) is None else json.loads(text),
            )
            for row in range(len(self))
        ]
        return Timeline.model_construct(user=self.user, at=at, events=events)


def read(
    session: ReadSession, user: str, *, at: datetime, limit: int, surface: str | None = None
) -> TimelineColumns:
    """The latest ``limit`` events of ``user`` strictly before ``at`` (on one surface, or on all)."""
    query = _latest_query(limit, surface, None)
    return _columns(user, _latest(session, query, user, microseconds(at)))


def read_many(
    session: ReadSession,
    requests: Sequence[tuple[str, datetime]],
    *,
    limit: int,
    surface: str | None = None,
    up_to_sequence: int | None = None,
) -> list[TimelineColumns]:
    """:func:`read` for each (user, at), in that order, with at most two queries for each different user.

    With ``up_to_sequence`` events accepted after that ingest sequence are not seen.
    """
    answers: list[TimelineColumns | None] = [None] * len(requests)
    by_user: dict[str, list[tuple[int, int]]] = {}
    for index, (user, at) in enumerate(requests):
        by_user.setdefault(user, []).append((microseconds(at), index))
    before = _latest_query(limit, surface, up_to_sequence)
    between = _between_query(surface, up_to_sequence)
    for user, wanted in by_user.items():
        earliest, latest = min(wanted)[0], max(wanted)[0]
        rows = _latest(session, before, user, earliest)
        if latest > earliest:
            span = {"of_user": user, "from_us": earliest, "before_us": latest}
            rows += session.execute(between, span).all()
        times = [row.event_time for row in rows]
        for at_us, index in wanted:
            end = int(np.searchsorted(times, at_us, side="left")) if rows else 0
            answers[index] = _columns(user, rows[max(0, end - limit) : end])
    return [answer for answer in answers if answer is not None]


def scan(
    session: ReadSession, start: datetime | None, end: datetime | None, key_range: KeyRange | None = None
) -> Iterator[pa.RecordBatch]:
    """All events with ``start <= event_time < end`` (None: unbounded) of the users in ``key_range``.

    Yields record batches of :data:`EVENT_SCHEMA`, ordered by (user, event_time, ingest sequence); the session
    must stay open until the last one.
    """
    query = select(
        EventRow.user, EventRow.item, EventRow.action, EventRow.surface, EventRow.event_time, EventRow.label
    ).order_by(EventRow.user, EventRow.event_time, EventRow.sequence)
    if start is not None:
        query = query.where(EventRow.event_time >= microseconds(start))
    if end is not None:
        query = query.where(EventRow.event_time < microseconds(end))
    if key_range is not None and key_range.start is not None:
        query = query.where(EventRow.user >= key_range.start)
    if key_range is not None and key_range.end is not None:
        query = query.where(EventRow.user < key_range.end)
    result = session.execute(query.execution_options(yield_per=_CHUNK_ROWS))
    for chunk in result.partitions():
        columns = zip(*chunk, strict=True)
        arrays = [pa.array(column, field.type) for column, field in zip(columns, EVENT_SCHEMA, strict=True)]
        yield pa.RecordBatch.from_arrays(arrays, schema=EVENT_SCHEMA)


def users(
    session: ReadSession, before: datetime | None = None, key_range: KeyRange | None = None
) -> list[str]:
    """The different users with an event strictly before ``before`` (None: any event), sorted bytewise."""
    query = _users_query(before).order_by(TimelineRow.user)
    if key_range is not None and key_range.start is not None:
        query = query.where(TimelineRow.user >= key_range.start)
    if key_range is not None and key_range.end is not None:
        query = query.where(TimelineRow.user < key_range.end)
    return list(session.scalars(query).all())


def count_users(session: ReadSession, before: datetime | None = None) -> int:
    """How many users :func:`users` returns."""
    query = select(func.count(TimelineRow.user.distinct()))
    if before is not None:
        query = query.where(TimelineRow.first_time < microseconds(before))
    return session.execute(query).scalar_one()


def user_ranges(session: ReadSession, before: datetime | None, partitions: int) -> list[KeyRange]:
    """Cut the users into at most ``partitions`` ranges of nearly equal count; none where there is no user."""
    return cut_key_ranges(
        count_users(session, before), partitions, partial(keys_at, session, _users_query(before))
    )


def _users_query(before: datetime | None) -> Select[str]:
    query = select(TimelineRow.user).distinct()
    return query if before is None else query.where(TimelineRow.first_time < microseconds(before))


def _latest_query(limit: int, surface: str | None, up_to_sequence: int | None) -> _Query:
    """For any user: built once for many, because building it costs as much as running it."""
    query = _events_query(surface, up_to_sequence)
    return query.order_by(_EVENTS.event_time.desc(), _EVENTS.sequence.desc()).limit(limit)


def _latest(session: ReadSession, query: _Query, user: str, before_us: int) -> list[Any]:
    rows = session.execute(query, {"of_user": user, "before_us": before_us})
    return list(reversed(rows.all()))


def _between_query(surface: str | None, up_to_sequence: int | None) -> _Query:
    """The events of any user from one time to before another, oldest first."""
    query = _events_query(surface, up_to_sequence).where(_EVENTS.event_time >= bindparam("from_us"))
    return query.order_by(_EVENTS.event_time, _EVENTS.sequence)


def _events_query(surface: str | None, up_to_sequence: int | None) -> _Query:
    query: _Query = select(*_COLUMNS).where(
        _EVENTS.user == bindparam("of_user"), _EVENTS.event_time < bindparam("before_us")
    )
    if surface is not None:
        query = query.where(_EVENTS.surface == surface)
    if up_to_sequence is not None:
        query = query.where(_EVENTS.sequence <= up_to_sequence)
    return query


def _columns(user: str, rows: Sequence[Any]) -> TimelineColumns:
    item, action, surface, times, label, features = zip(*rows, strict=True) if rows else ((),) * 6
    return TimelineColumns(
        user=user,
        item=list(item),
        action=list(action),
        surface=list(surface),
        event_time_us=np.array(times, np.int64),
        label=np.array(label, np.float32),
        features=list(features),
    )
