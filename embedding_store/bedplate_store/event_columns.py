"""A batch of events as columns, checked once on the way in, so that nothing is done per row later."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from bedplate.errors import BatchTooLarge, EmptyBatch, InvalidRequest
from bedplate.references import check_name
from bedplate.wire.store import Event
from bedplate_store.times import microseconds

MAX_BATCH_ROWS = 100_000
_MAX_KEY = 256
_MAX_ACTION = 64


@dataclass(frozen=True, slots=True)
class EventColumns:
    """n events, in the order they are to be accepted.

    Attributes:
        user, item, action, surface: dictionary-encoded strings [n].
        event_time_us: int64 microseconds UTC [n].
        label: float64 [n], NaN where an event has none.
        features: JSON objects of the items, or None, [n]; None altogether where no event has any.
    """

    user: pa.DictionaryArray
    item: pa.DictionaryArray
    action: pa.DictionaryArray
    surface: pa.DictionaryArray
    event_time_us: NDArray[np.int64]
    label: NDArray[np.float64]
    features: list[str | None] | None

    def __len__(self) -> int:
        return len(self.event_time_us)

    @property
    def surfaces(self) -> list[str]:
        """The surfaces that occur, sorted."""
        return sorted(self.surface.dictionary.to_pylist())

    @classmethod
    def from_wire(cls, events: Sequence[Event]) -> EventColumns:
        """Columns of validated documents.

        Raises:
            EmptyBatch, BatchTooLarge, InvalidRequest: see :meth:`from_arrow`.
        """
        _check_rows(len(events))
        features = [
            None if event.features is None else json.dumps(event.features, separators=(",", ":"))
            for event in events
        ]
        return cls.from_arrow(
            pa.table(
                {
                    "user": pa.array([event.user for event in events], pa.string()),
                    "item": pa.array([event.item for event in events], pa.string()),
                    "action": pa.array([event.action for event in events], pa.string()),
                    "surface": pa.array([event.surface for event in events], pa.string()),
                    "event_time": pa.array([microseconds(event.event_time) for event in events], pa.int64()),
                    "label": pa.array([event.label for event in events], pa.float64()),
                    "features": pa.array(features, pa.string()),
                }
            )
        )

    @classmethod
    def from_arrow(cls, table: pa.Table) -> EventColumns:
        """Columns ``user, item, action, surface`` (string), ``event_time`` (timestamp, or int64 us UTC), and
        optionally ``label`` (float, nullable) and ``features`` (string, JSON objects, nullable).

        Raises:
            EmptyBatch: no rows.
            BatchTooLarge: over 100,000 rows.
            InvalidRequest: a column is missing, of the wrong type or has nulls; a key, action, surface, label
                or features document is not allowed. The detail names column and row.
        """
        _check_rows(table.num_rows)
        for name in ("user", "item", "action", "surface", "event_time"):
            if name not in table.column_names:
                raise InvalidRequest(
                    f"The events have no column {name!r}; they need user, item, action, surface, event_time."
                )
        surface = encoded_strings(table, "surface", 63)
        for name in surface.dictionary.to_pylist():
            check_name(name, "surface")
        return cls(
            user=encoded_strings(table, "user", _MAX_KEY),
            item=encoded_strings(table, "item", _MAX_KEY),
            action=encoded_strings(table, "action", _MAX_ACTION),
            surface=surface,
            event_time_us=time_column(table, "event_time"),
            label=_labels(table),
            features=features_column(table),
        )


def encoded_strings(table: pa.Table, name: str, max_length: int) -> pa.DictionaryArray:
    """Column ``name`` dictionary-encoded; every string has 1 to ``max_length`` characters, none of them NUL.

    Raises:
        InvalidRequest: it is not so, or the column has nulls or is no string column.
    """
    column = table.column(name).combine_chunks()
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
        raise InvalidRequest(f"Column {name!r} must be of type string, not {column.type}.", column=name)
    if column.null_count:
        row = pc.index(pc.is_null(column), True).as_py()
        raise InvalidRequest(f"Column {name!r} has a null in row {row}; every row needs a value.", row=row)
    encoded = column.cast(pa.string()).dictionary_encode()
    lengths = pc.utf8_length(encoded.dictionary)
    bad = pc.or_(
        pc.or_(pc.equal(lengths, 0), pc.greater(lengths, max_length)),
        pc.match_substring(encoded.dictionary, "\x00"),
    )
    code = pc.index(bad, True).as_py()
    if code >= 0:
        row = pc.index(encoded.indices, pa.scalar(code, encoded.indices.type)).as_py()
        raise InvalidRequest(
            f"Column {name!r}, row {row}: a value needs 1 to {max_length} characters and no NUL.",
            column=name,
            row=row,
        )
    return encoded


def time_column(table: pa.Table, name: str) -> NDArray[np.int64]:
    """Column ``name`` as int64 microseconds UTC.

    Raises:
        InvalidRequest: it has nulls, or is neither a timestamp with a zone nor int64 microseconds.
    """
    column = table.column(name).combine_chunks()
    zoned = pa.types.is_timestamp(column.type) and column.type.tz is not None
    if not zoned and not pa.types.is_int64(column.type):
        raise InvalidRequest(
            f"Column {name!r} must be timestamp[us, UTC] or int64 microseconds since 1970 UTC, "
            f"not {column.type}.",
            column=name,
        )
    if column.null_count:
        row = pc.index(pc.is_null(column), True).as_py()
        raise InvalidRequest(f"Column {name!r} has a null in row {row}; every row needs a time.", row=row)
    if zoned:
        column = column.cast(pa.timestamp("us", tz="UTC"), safe=False).cast(pa.int64())
    times: NDArray[np.int64] = np.ascontiguousarray(column.to_numpy(zero_copy_only=False))
    return times


def features_column(table: pa.Table) -> list[str | None] | None:
    """Column ``features`` as canonical JSON (sorted names, no blanks); None where it is absent or all null.

    Raises:
        InvalidRequest: a value is not a JSON object.
    """
    if "features" not in table.column_names:
        return None
    column = table.column("features")
    if column.null_count == len(column):
        return None
    canonical: dict[str, str] = {}
    values: list[str | None] = column.to_pylist()
    for row, text in enumerate(values):
        if text is None:
            continue
        known = canonical.get(text)
        if known is None:
            known = canonical[text] = _canonical_object(text, row)
        values[row] = known
    return values


def canonical_features(features: dict[str, Any]) -> str:
    """The one text a features document is stored as.

    Raises:
        InvalidRequest: it holds NaN or infinity, which JSON does not know.
    """
    try:
        return json.dumps(
            features, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
        )
    except ValueError as error:
        raise InvalidRequest("Features may hold no NaN and no infinity; leave such a member out.") from error


def _canonical_object(text: object, row: int) -> str:
    try:
        document = json.loads(text) if isinstance(text, str) else None
        if isinstance(document, dict):
            return canonical_features(document)
        reason = "it is no object"
    except (ValueError, InvalidRequest) as error:
        reason = str(error)
    raise InvalidRequest(
        f"Column 'features', row {row}: write a JSON object such as {{\"year\": 1995}}, or null ({reason}).",
        column="features",
        row=row,
    )


def _labels(table: pa.Table) -> NDArray[np.float64]:
    if "label" not in table.column_names:
        return np.full(table.num_rows, np.nan)
    column = table.column("label").combine_chunks()
    if not (pa.types.is_floating(column.type) or pa.types.is_integer(column.type)):
        raise InvalidRequest(f"Column 'label' must be a float, not {column.type}.", column="label")
    labels: NDArray[np.float64] = column.cast(pa.float64()).fill_null(np.nan).to_numpy(zero_copy_only=False)
    infinite = np.flatnonzero(np.isinf(labels))
    if len(infinite):
        row = int(infinite[0])
        raise InvalidRequest(f"Column 'label', row {row}: a label must be finite or null.", row=row)
    return labels


def _check_rows(rows: int) -> None:
    if rows == 0:
        raise EmptyBatch("The batch has no events; send at least one.")
    if rows > MAX_BATCH_ROWS:
        raise BatchTooLarge(
            f"The batch has {rows:,} events; send at most {MAX_BATCH_ROWS:,} at once.", limit=MAX_BATCH_ROWS
        )
