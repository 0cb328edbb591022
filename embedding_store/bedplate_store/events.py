"""Taking in events: all of a batch or none of it, in the order of each user's timeline on each surface."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import cast

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import case, insert, select
from sqlalchemy.engine.default import DefaultDialect

from bedplate.errors import EventInFuture, EventsOutOfOrder
from bedplate.wire.store import EventsAccepted
from bedplate_store import items, sequences
from bedplate_store.database import WriteSession
from bedplate_store.event_columns import MAX_BATCH_ROWS, EventColumns
from bedplate_store.tables.records import EventRow, TimelineRow
from bedplate_store.times import instant, microseconds
from bedplate_store.upserts import conflict_insert

__all__ = ["MAX_BATCH_ROWS", "EventColumns", "ingest"]

_CLOCK_TOLERANCE = timedelta(seconds=60)
_USERS_PER_QUERY = 5_000
_EVENT_COLUMNS = [column.name for column in EventRow.__table__.columns]


def ingest(
    session: WriteSession, columns: EventColumns, *, now: datetime, allow_late: bool = False
) -> EventsAccepted:
    """Accept a batch. Item features that came with it update the catalogue.

    Within one user and surface ``event_time`` may not decrease, neither inside the batch nor against what was
    accepted before; ``allow_late`` lifts this and puts each event where it belongs. Equal times keep the
    order in which they were accepted. Batches are taken one at a time, over all processes.

    Raises:
        EventInFuture: an event lies more than 60 s after ``now``.
        EventsOutOfOrder: see above; the context has ``row`` (the first bad one) and ``accepted_time``.
    """
    _check_future(columns, now)
    # Taking the sequence also locks it: from here on nobody else moves the timelines we check against.
    first = sequences.advance(session, "event", len(columns))
    pair_codes, pairs = _pairs(columns)
    if not allow_late:
        _check_order(session, columns, pair_codes, pairs)
    _insert_events(session, columns, first)
    _widen_timelines(session, columns, pair_codes, pairs)
    items.upsert_from_events(session, columns)
    return EventsAccepted(accepted=len(columns), sequence=first + len(columns) - 1)


def _check_future(columns: EventColumns, now: datetime) -> None:
    limit_us = microseconds(now + _CLOCK_TOLERANCE)
    late = np.flatnonzero(columns.event_time_us > limit_us)
    if len(late):
        row = int(late[0])
        raise EventInFuture(
            f"Row {row} happened at {columns.event_time_us[row]} us, after the server's clock "
            f"({now.isoformat()}); send events once they have happened, in microseconds UTC.",
            row=row,
        )


def _pairs(columns: EventColumns) -> tuple[NDArray[np.int64], list[tuple[str, str]]]:
    """Number the (user, surface) pairs of the batch: codes [n], and the pair of each code."""
    users = columns.user.dictionary.to_pylist()
    surfaces = columns.surface.dictionary.to_pylist()
    user_codes = columns.user.indices.to_numpy().astype(np.int64)
    surface_codes = columns.surface.indices.to_numpy().astype(np.int64)
    combined, codes = np.unique(user_codes * len(surfaces) + surface_codes, return_inverse=True)
    pairs = [(users[value // len(surfaces)], surfaces[value % len(surfaces)]) for value in combined.tolist()]
    return codes.astype(np.int64), pairs


def _check_order(
    session: WriteSession, columns: EventColumns, codes: NDArray[np.int64], pairs: list[tuple[str, str]]
) -> None:
    last_times = _last_times(session, sorted({user for user, _ in pairs}))
    lowest = np.iinfo(np.int64).min
    accepted = np.array([last_times.get(pair, lowest) for pair in pairs], np.int64)
    times = columns.event_time_us
    # Per pair, in batch order: what came before an event is its predecessor, or else what was accepted.
    order = np.argsort(codes, kind="stable")
    sorted_codes, sorted_times = codes[order], times[order]
    before = np.empty_like(sorted_times)
    before[1:] = sorted_times[:-1]
    starts = np.flatnonzero(np.r_[True, sorted_codes[1:] != sorted_codes[:-1]])
    before[starts] = accepted[sorted_codes[starts]]
    late = sorted_times < before
    if not late.any():
        return
    position = np.flatnonzero(late)[np.argmin(order[late])]
    row = int(order[position])
    user, surface = pairs[int(sorted_codes[position])]
    accepted_time = instant(int(before[position]))
    raise EventsOutOfOrder(
        f"Row {row} (user {user!r}, surface {surface!r}) happened at {instant(int(times[row])).isoformat()}, "
        f"but an event of {accepted_time.isoformat()} comes before it; sort the events by time, or send "
        "them with allow_late=true.",
        row=row,
        user=user,
        surface=surface,
        accepted_time=accepted_time.isoformat(),
    )


def _last_times(session: WriteSession, users: list[str]) -> dict[tuple[str, str], int]:
    found: dict[tuple[str, str], int] = {}
    for start in range(0, len(users), _USERS_PER_QUERY):
        rows = session.execute(
            select(TimelineRow.user, TimelineRow.surface, TimelineRow.last_time).where(
                TimelineRow.user.in_(users[start : start + _USERS_PER_QUERY])
            )
        )
        found.update({(user, surface): last for user, surface, last in rows})
    return found


def _insert_events(session: WriteSession, columns: EventColumns, first: int) -> None:
    count = len(columns)
    # Sorted as the table is clustered: neighbouring rows then fall on the same page.
    user_rank = np.argsort(np.argsort(np.array(columns.user.dictionary.to_pylist(), dtype=object)))
    order = np.lexsort((columns.event_time_us, user_rank[columns.user.indices.to_numpy()]))
    labels = columns.label.astype(object)
    labels[np.isnan(columns.label)] = None
    features = columns.features or [None] * count
    values = zip(  # in the order of _EVENT_COLUMNS
        columns.user.take(order).to_pylist(),
        columns.event_time_us[order].tolist(),
        (first + order).tolist(),
        columns.item.take(order).to_pylist(),
        columns.action.take(order).to_pylist(),
        columns.surface.take(order).to_pylist(),
        labels[order].tolist(),
        [features[row] for row in order.tolist()],
        strict=True,
    )
    # As tuples, past SQLAlchemy's handling of each row's parameters, which takes longer than the insert.
    dialect = session.get_bind().dialect
    dialect_class = cast(type[DefaultDialect], type(dialect))
    positional = dialect_class(paramstyle="qmark" if dialect.name == "sqlite" else "format")
    statement = insert(EventRow).compile(dialect=positional, column_keys=_EVENT_COLUMNS)
    session.connection().exec_driver_sql(str(statement), [*values])


def _widen_timelines(
    session: WriteSession, columns: EventColumns, codes: NDArray[np.int64], pairs: list[tuple[str, str]]
) -> None:
    first_times = np.full(len(pairs), np.iinfo(np.int64).max)
    last_times = np.full(len(pairs), np.iinfo(np.int64).min)
    np.minimum.at(first_times, codes, columns.event_time_us)
    np.maximum.at(last_times, codes, columns.event_time_us)
    statement = conflict_insert(session, TimelineRow)
    given = statement.excluded
    statement = statement.on_conflict_do_update(
        index_elements=["user", "surface"],
        set_={
            "first_time": case(
                (given.first_time < TimelineRow.first_time, given.first_time), else_=TimelineRow.first_time
            ),
            "last_time": case(
                (given.last_time > TimelineRow.last_time, given.last_time), else_=TimelineRow.last_time
            ),
        },
    )
    rows = [
        {"user": user, "surface": surface, "first_time": first, "last_time": last}
        for (user, surface), first, last in zip(pairs, first_times.tolist(), last_times.tolist(), strict=True)
    ]
    session.connection().execute(statement, rows)
