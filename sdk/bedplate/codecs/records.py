"""Events, items and outcomes on the wire: Arrow tables in the bulk schema, and their JSON documents.

A decoded table always has exactly the columns and types of its schema, every value checked, so that whoever
takes it need not check again.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pyarrow.compute as pc

from bedplate.codecs.columns import bad_value, column, decode_table, encode_table, refuse_nulls
from bedplate.errors import EmptyBatch, InvalidRequest
from bedplate.references import check_name
from bedplate.wire.store import Event, Item, Outcome

TIME = pa.timestamp("us", "UTC")
EVENT_SCHEMA = pa.schema(
    [
        pa.field("user", pa.string(), nullable=False),
        pa.field("item", pa.string(), nullable=False),
        pa.field("action", pa.string(), nullable=False),
        pa.field("surface", pa.string(), nullable=False),
        pa.field("event_time", TIME, nullable=False),
        pa.field("label", pa.float32()),
        pa.field("features", pa.string()),
    ]
)
EVENT_SCAN_SCHEMA = pa.schema([EVENT_SCHEMA.field(index) for index in range(6)])
"""What ``GET /v1/events`` streams: the events without features."""
ITEM_SCHEMA = pa.schema([pa.field("key", pa.string(), nullable=False), pa.field("features", pa.string())])
OUTCOME_SCHEMA = pa.schema(
    [
        pa.field("request_id", pa.string(), nullable=False),
        pa.field("item", pa.string(), nullable=False),
        pa.field("task", pa.string(), nullable=False),
        pa.field("label", pa.float32(), nullable=False),
        pa.field("outcome_time", TIME, nullable=False),
    ]
)
MAXIMUM_LENGTHS = {"user": 256, "item": 256, "key": 256, "action": 64, "request_id": 64}
_EARLIEST_US = -62_135_596_800_000_000  # year 1, the first that datetime can hold
_LATEST_US = 253_402_300_799_999_999  # the end of year 9999
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def to_microseconds(time: datetime) -> int:
    """Microseconds since 1970 UTC of an aware time, exactly."""
    return (time - _EPOCH) // timedelta(microseconds=1)


def from_microseconds(microseconds: int) -> datetime:
    """The aware UTC time of microseconds since 1970, exactly."""
    return _EPOCH + timedelta(microseconds=microseconds)


def check_columns(table: pa.Table, schema: pa.Schema, optional: Sequence[str] = ()) -> None:
    """Raise InvalidRequest naming a column of ``schema`` that is missing, or one it does not know."""
    for name in schema.names:
        if name not in optional or name in table.column_names:
            column(table, name)
    unknown = [name for name in table.column_names if name not in schema.names]
    if unknown:
        raise InvalidRequest(
            f"Column {unknown[0]!r} is not known here; the columns are: {', '.join(schema.names)}.",
            column=unknown[0],
        )


def text_column(table: pa.Table, name: str) -> pa.ChunkedArray:
    """A column of non-empty text within its maximum length, as string.

    Raises:
        InvalidRequest: naming the column and the first bad row.
    """
    values = column(table, name)
    kind = values.type.value_type if pa.types.is_dictionary(values.type) else values.type
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)):
        raise InvalidRequest(f"Column {name!r} is {values.type}; send it as string.", column=name)
    refuse_nulls(values, name)
    values = values.cast(pa.string())
    lengths = pc.utf8_length(values)
    longest = MAXIMUM_LENGTHS.get(name, 63)
    row = pc.index(pc.or_(pc.equal(lengths, 0), pc.greater(lengths, longest)), True).as_py()
    if row >= 0:
        raise bad_value(name, row, f"has {lengths[row].as_py()} characters; 1 to {longest} are allowed.")
    return values


def name_column(table: pa.Table, name: str) -> pa.ChunkedArray:
    """A text column whose every value is a legal name (see ``bedplate.references``)."""
    values = text_column(table, name)
    for value in pc.unique(values).to_pylist():
        try:
            check_name(value, name)
        except InvalidRequest as error:
            raise bad_value(name, pc.index(values, value).as_py(), error.detail) from None
    return values


def time_column(table: pa.Table, name: str) -> pa.ChunkedArray:
    """A column of zoned timestamps, or of int64 microseconds since 1970 UTC, as timestamp[us, UTC].

    Raises:
        InvalidRequest: naming the column, and the first row out of the years 1 to 9999.
    """
    values = column(table, name)
    refuse_nulls(values, name)
    if pa.types.is_timestamp(values.type):
        if values.type.tz is None:
            raise InvalidRequest(f"Column {name!r} has no zone; send timestamp[us, UTC].", column=name)
        # safe=False: nanoseconds are cut to microseconds instead of refused.
        microseconds = values.cast(TIME, safe=False).cast(pa.int64())
    elif pa.types.is_int64(values.type):
        microseconds = values
    else:
        raise InvalidRequest(
            f"Column {name!r} is {values.type}; send timestamp[us, UTC], or int64 microseconds since 1970.",
            column=name,
        )
    outside = pc.or_(pc.less(microseconds, _EARLIEST_US), pc.greater(microseconds, _LATEST_US))
    row = pc.index(outside, True).as_py()
    if row >= 0:
        raise bad_value(
            name,
            row,
            f"{microseconds[row].as_py()} is no microsecond of the years 1 to 9999; check the unit.",
        )
    return microseconds.cast(TIME)


def label_column(table: pa.Table, name: str, *, nullable: bool) -> pa.ChunkedArray:
    """A numeric column as float32. NaN counts as "no label": null where that is allowed, else an error."""
    values = column(table, name)
    kind = values.type
    if not (pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_null(kind)):
        raise InvalidRequest(f"Column {name!r} is {kind}; send float32.", column=name)
    values = values.cast(pa.float32(), safe=False)
    values = pc.if_else(pc.is_nan(values), None, values).cast(pa.float32())
    if not nullable:
        refuse_nulls(values, name)
    row = pc.index(pc.is_inf(values), True).as_py()
    if row >= 0:
        raise bad_value(name, row, "is infinite.")
    return values


def features_column(table: pa.Table, name: str = "features") -> pa.ChunkedArray:
    """A column of JSON objects as text, or null.

    Raises:
        InvalidRequest: naming the first row that is not a JSON object.
    """
    values = column(table, name)
    if pa.types.is_null(values.type):
        return values.cast(pa.string())
    kind = values.type.value_type if pa.types.is_dictionary(values.type) else values.type
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        raise InvalidRequest(f"Column {name!r} is {values.type}; send JSON objects as string.", column=name)
    values = values.cast(pa.string())
    # Features repeat with their item: each distinct text is parsed once.
    for text in pc.unique(values).to_pylist():
        if text is not None and not _is_object(text):
            row = pc.index(values, text).as_py()
            raise bad_value(name, row, f"is not a JSON object: {text[:80]!r}.")
    return values


def _is_object(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except ValueError:
        return False


def check_events(table: pa.Table) -> pa.Table:
    """Any table of events in EVENT_SCHEMA, every value checked; label and features may be absent.

    Raises:
        EmptyBatch: no row.
        InvalidRequest: naming the column and row.
    """
    check_columns(table, EVENT_SCHEMA, optional=("label", "features"))
    if table.num_rows == 0:
        raise EmptyBatch("No events were sent; send at least one.")
    nothing = pa.nulls(table.num_rows)
    columns = [text_column(table, name) for name in ("user", "item", "action")]
    columns.append(name_column(table, "surface"))
    columns.append(time_column(table, "event_time"))
    columns.append(label_column(_with(table, "label", nothing), "label", nullable=True))
    columns.append(features_column(_with(table, "features", nothing)))
    return pa.Table.from_arrays(columns, schema=EVENT_SCHEMA)


def _with(table: pa.Table, name: str, default: pa.Array) -> pa.Table:
    return table if name in table.column_names else table.append_column(name, default)


def events_to_table(events: Sequence[Event]) -> pa.Table:
    """Event documents in EVENT_SCHEMA."""
    return pa.table(
        {
            "user": [event.user for event in events],
            "item": [event.item for event in events],
            "action": [event.action for event in events],
            "surface": [event.surface for event in events],
            "event_time": [to_microseconds(event.event_time) for event in events],
            "label": [event.label for event in events],
            "features": [None if event.features is None else json.dumps(event.features) for event in events],
        },
        schema=pa.schema(
            [*list(EVENT_SCHEMA)[:4], pa.field("event_time", pa.int64()), *list(EVENT_SCHEMA)[5:]]
        ),
    ).cast(EVENT_SCHEMA)


def events_from_table(table: pa.Table) -> list[Event]:
    """The event documents of a checked table."""
    names = [name for name in EVENT_SCHEMA.names if name in table.column_names]
    rows = table.select(names).cast(pa.schema([EVENT_SCHEMA.field(name) for name in names])).to_pylist()
    return [
        Event(**{**row, "features": json.loads(row["features"])} if row.get("features") else row)
        for row in rows
    ]


def encode_events(table: pa.Table) -> bytes:
    """A checked table of events as an Arrow stream."""
    return encode_table(check_events(table))


def decode_events(body: bytes | memoryview) -> pa.Table:
    """A bulk body of events, checked, in EVENT_SCHEMA. Raises what ``check_events`` raises."""
    return check_events(decode_table(body))


def items_to_table(items: Sequence[Item]) -> pa.Table:
    """Catalogue documents in ITEM_SCHEMA."""
    return pa.table(
        {"key": [item.key for item in items], "features": [json.dumps(item.features) for item in items]},
        schema=ITEM_SCHEMA,
    )


def items_from_table(table: pa.Table) -> list[Item]:
    """The catalogue documents of a checked table; no features count as empty ones."""
    keys, features = table.column("key").to_pylist(), table.column("features").to_pylist()
    return [
        Item(key=key, features=json.loads(text or "{}")) for key, text in zip(keys, features, strict=True)
    ]


def check_items(table: pa.Table) -> pa.Table:
    """Any table of items in ITEM_SCHEMA, every value checked.

    Raises:
        EmptyBatch: no row.
        InvalidRequest: naming the column and row.
    """
    check_columns(table, ITEM_SCHEMA, optional=("features",))
    if table.num_rows == 0:
        raise EmptyBatch("No items were sent; send at least one.")
    features = features_column(_with(table, "features", pa.nulls(table.num_rows)))
    return pa.Table.from_arrays([text_column(table, "key"), features], schema=ITEM_SCHEMA)


def encode_items(table: pa.Table) -> bytes:
    """A checked table of items as an Arrow stream."""
    return encode_table(check_items(table))


def decode_items(body: bytes | memoryview) -> pa.Table:
    """A bulk body of items, checked, in ITEM_SCHEMA. Raises what ``check_items`` raises."""
    return check_items(decode_table(body))


def outcomes_to_table(outcomes: Sequence[Outcome]) -> pa.Table:
    """Outcome documents in OUTCOME_SCHEMA."""
    names = OUTCOME_SCHEMA.names
    return pa.table({name: [getattr(one, name) for one in outcomes] for name in names}, schema=OUTCOME_SCHEMA)


def outcomes_from_table(table: pa.Table) -> list[Outcome]:
    """The outcome documents of a checked table."""
    return [Outcome(**row) for row in table.to_pylist()]


def check_outcomes(table: pa.Table) -> pa.Table:
    """Any table of outcomes in OUTCOME_SCHEMA, every value checked; without ``task`` it is ``label``.

    Raises:
        EmptyBatch: no row.
        InvalidRequest: naming the column and row.
    """
    check_columns(table, OUTCOME_SCHEMA, optional=("task",))
    if table.num_rows == 0:
        raise EmptyBatch("No outcomes were sent; send at least one.")
    table = _with(table, "task", pa.array(["label"] * table.num_rows))
    columns = [
        text_column(table, "request_id"),
        text_column(table, "item"),
        name_column(table, "task"),
        label_column(table, "label", nullable=False),
        time_column(table, "outcome_time"),
    ]
    return pa.Table.from_arrays(columns, schema=OUTCOME_SCHEMA)


def encode_outcomes(table: pa.Table) -> bytes:
    """A checked table of outcomes as an Arrow stream."""
    return encode_table(check_outcomes(table))


def decode_outcomes(body: bytes | memoryview) -> pa.Table:
    """A bulk body of outcomes, checked, in OUTCOME_SCHEMA. Raises what ``check_outcomes`` raises."""
    return check_outcomes(decode_table(body))
