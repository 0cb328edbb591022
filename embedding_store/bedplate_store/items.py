"""The item catalogue: the newest known features of every item."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from datetime import datetime
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from sqlalchemy import Select, func, select

from bedplate.errors import BatchTooLarge, EmptyBatch, NotFound
from bedplate.wire.store import Item, ItemsAccepted
from bedplate_store.database import ReadSession, WriteSession
from bedplate_store.event_columns import (
    MAX_BATCH_ROWS,
    EventColumns,
    canonical_features,
    encoded_strings,
    features_column,
)
from bedplate_store.key_ranges import KeyRange, cut_key_ranges, keys_at
from bedplate_store.tables.records import ItemRow
from bedplate_store.times import microseconds
from bedplate_store.upserts import conflict_insert

_KEYS_PER_QUERY = 5_000
_CHUNK_ROWS = 10_000
_NEVER = -(2**63)
"""As of when an item without features has none: before everything."""


def upsert(session: WriteSession, items: Sequence[Item], *, now: datetime) -> ItemsAccepted:
    """Write catalogue entries; where a key comes twice, the last one counts.

    Raises:
        EmptyBatch: no items.
        BatchTooLarge: over 100,000.
    """
    _check_rows(len(items))
    as_of = microseconds(now)
    _write(session, {item.key: (canonical_features(item.features), as_of) for item in items})
    return ItemsAccepted(accepted=len(items))


def upsert_arrow(session: WriteSession, table: pa.Table, *, now: datetime) -> ItemsAccepted:
    """As :func:`upsert`, from columns ``key`` (string) and ``features`` (string, JSON objects, nullable).

    Raises:
        EmptyBatch, BatchTooLarge, InvalidRequest: a column is missing or holds something else.
    """
    _check_rows(table.num_rows)
    keys = encoded_strings(table, "key", 256).to_pylist()
    features = features_column(table) or [None] * len(keys)
    as_of = microseconds(now)
    _write(session, {key: (text or "{}", as_of) for key, text in zip(keys, features, strict=True)})
    return ItemsAccepted(accepted=len(keys))


def upsert_from_events(session: WriteSession, columns: EventColumns) -> None:
    """Keep the newest features of every item that came with an event; an older event changes nothing.

    An item that comes without features is in the catalogue all the same, with none: it exists, so that embed
    jobs find it. Anything ever said about it counts for more.
    """
    newest = dict.fromkeys(pc.unique(columns.item).to_pylist(), ("{}", _NEVER))
    if columns.features is not None:
        rows = zip(columns.item.to_pylist(), columns.event_time_us.tolist(), columns.features, strict=True)
        for key, time_us, features in rows:
            if features is not None and time_us >= newest[key][1]:
                newest[key] = (features, time_us)
    _write(session, newest)


def get(session: ReadSession, key: str) -> Item:
    """One entry.

    Raises:
        NotFound: the catalogue has no such item.
    """
    found = get_many(session, [key])
    if key not in found:
        raise NotFound(f"The catalogue has no item {key!r}; PUT /v1/items adds it.", item=key)
    return Item(key=key, features=found[key])


def get_many(session: ReadSession, keys: Sequence[str]) -> dict[str, dict[str, Any]]:
    """The features of those ``keys`` that the catalogue has."""
    found: dict[str, dict[str, Any]] = {}
    distinct = sorted(set(keys))
    for start in range(0, len(distinct), _KEYS_PER_QUERY):
        rows = session.execute(
            select(ItemRow.key, ItemRow.features).where(
                ItemRow.key.in_(distinct[start : start + _KEYS_PER_QUERY])
            )
        )
        found.update({key: json.loads(features) for key, features in rows})
    return found


def scan(
    session: ReadSession, key_range: KeyRange | None = None, *, after: str | None = None
) -> Iterator[list[Item]]:
    """Entries of a range (None: all) whose key is greater than ``after``, in chunks, sorted by key."""
    query = _sorted_entries(key_range, after)
    result = session.execute(query.execution_options(yield_per=_CHUNK_ROWS))
    for chunk in result.partitions():
        yield [Item(key=key, features=json.loads(features)) for key, features in chunk]


def scan_features(session: ReadSession) -> Iterator[tuple[list[str], list[dict[str, Any]]]]:
    """Keys and features of the whole catalogue, in chunks, in no order."""
    query = select(ItemRow.key, ItemRow.features).execution_options(yield_per=_CHUNK_ROWS)
    for chunk in session.execute(query).partitions():
        # One document of all texts is read sooner than one after the other.
        yield [key for key, _ in chunk], json.loads(f"[{','.join(text for _, text in chunk)}]")


def page(
    session: ReadSession, key_range: KeyRange | None = None, *, after: str | None = None, limit: int = 1000
) -> list[Item]:
    """Up to ``limit`` entries of a range (None: all) whose key is greater than ``after``, sorted by key."""
    query = _sorted_entries(key_range, after).limit(limit)
    return [Item(key=key, features=json.loads(features)) for key, features in session.execute(query)]


def count(session: ReadSession) -> int:
    return session.execute(select(func.count()).select_from(ItemRow)).scalar_one()


def key_ranges(session: ReadSession, partitions: int) -> list[KeyRange]:
    """Cut the catalogue into at most ``partitions`` ranges of nearly equal count; none where it is empty."""
    return cut_key_ranges(count(session), partitions, partial(keys_at, session, select(ItemRow.key)))


def _sorted_entries(key_range: KeyRange | None, after: str | None) -> Select[str, str]:
    query = select(ItemRow.key, ItemRow.features).order_by(ItemRow.key)
    if key_range is not None and key_range.start is not None:
        query = query.where(ItemRow.key >= key_range.start)
    if key_range is not None and key_range.end is not None:
        query = query.where(ItemRow.key < key_range.end)
    if after is not None:
        query = query.where(ItemRow.key > after)
    return query


def _write(session: WriteSession, entries: dict[str, tuple[str, int]]) -> None:
    if not entries:
        return
    statement = conflict_insert(session, ItemRow)
    statement = statement.on_conflict_do_update(
        index_elements=["key"],
        set_={"features": statement.excluded.features, "as_of": statement.excluded.as_of},
        where=statement.excluded.as_of >= ItemRow.as_of,
    )
    # Sorted, so that two writers take their row locks in the same order.
    rows = [
        {"key": key, "features": features, "as_of": as_of}
        for key, (features, as_of) in sorted(entries.items())
    ]
    session.connection().execute(statement, rows)


def _check_rows(rows: int) -> None:
    if rows == 0:
        raise EmptyBatch("The batch has no items; send at least one.")
    if rows > MAX_BATCH_ROWS:
        raise BatchTooLarge(
            f"The batch has {rows:,} items; send at most {MAX_BATCH_ROWS:,} at once.", limit=MAX_BATCH_ROWS
        )
