"""A directory of a user's own events, Parquet or CSV, as tables in the bulk schema.

Columns: ``user``, ``item``, ``action``, ``surface``, ``event_time``; ``label`` and ``features`` may be
absent. Keys may be integers. ``features`` is a JSON object as text, or (Parquet) a struct. Every error names
file, row and column; rows count from 1, the CSV header apart.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from bedplate.codecs import EVENT_SCHEMA, check_events
from bedplate.codecs.columns import bad_value, place
from bedplate.codecs.records import TIME, to_microseconds
from bedplate.errors import BedplateError, EmptyBatch, InvalidRequest

TimeUnit = Literal["iso8601", "s", "ms", "us"]
ROWS_AT_ONCE = 50_000
REQUIRED = ("user", "item", "action", "surface", "event_time")
_PER_UNIT = {"s": 1_000_000, "ms": 1_000, "us": 1}


@dataclass(frozen=True)
class EventFormat:
    """How the user's files are to be read.

    Attributes:
        time_unit: of times that are numbers (or text of digits): epoch seconds, milliseconds or microseconds.
            ``iso8601``: times are text, or of a timestamp type.
        assume_utc: take times without a zone as UTC instead of refusing them.
        columns: our name -> the name in the files, where they differ, e.g. ``{"user": "user_id"}``.
    """

    time_unit: TimeUnit = "iso8601"
    assume_utc: bool = False
    columns: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        unknown = [name for name in self.columns if name not in EVENT_SCHEMA.names]
        if unknown:
            raise InvalidRequest(
                f"{unknown[0]!r} is no column of events; they are {', '.join(EVENT_SCHEMA.names)}."
            )

    def name_of(self, name: str) -> str:
        return self.columns.get(name, name)


def event_files(directory: Path) -> list[Path]:
    """The Parquet and CSV files below ``directory``, by path; hidden ones are left out.

    Raises:
        InvalidRequest: it is no directory, or holds none.
    """
    if not directory.is_dir():
        raise InvalidRequest(f"{directory} is not a directory.")
    files = sorted(
        file
        for file in directory.rglob("*")
        if file.is_file()
        and file.suffix.lower() in (".parquet", ".csv")
        and not any(part.startswith((".", "_")) for part in file.relative_to(directory).parts)
    )
    if not files:
        raise InvalidRequest(f"{directory} holds no .parquet or .csv file.")
    return files


def read_events(
    directory: Path,
    how: EventFormat | None = None,
    *,
    report: Callable[[str], None] | None = None,
) -> Iterator[pa.Table]:
    """Tables of at most 50,000 checked events in EVENT_SCHEMA, file after file by path, rows in their order.

    Args:
        report: told about columns that are not read.

    Raises:
        InvalidRequest: naming file, row and column: a missing column, a bad or zoneless time, a label that is
            no number, features that are no JSON object, an empty or overlong key, a surface of illegal name.
        EmptyBatch: no file holds an event.
    """
    how = how or EventFormat()
    rows = 0
    for file in event_files(directory):
        first_row = 0
        for number, raw in enumerate(_raw_tables(file)):
            if number == 0:
                _check_names(file, raw, how, report)
            if raw.num_rows:
                yield _events(file, first_row, raw, how)
            first_row += raw.num_rows
        rows += first_row
    if rows == 0:
        raise EmptyBatch(f"The files in {directory} hold no events.")


def _raw_tables(file: Path) -> Iterator[pa.Table]:
    """The file in tables of at most ROWS_AT_ONCE rows; CSV columns are all text."""
    try:
        if file.suffix.lower() == ".parquet":
            with pq.ParquetFile(file) as opened:
                yield opened.schema_arrow.empty_table()
                for batch in opened.iter_batches(batch_size=ROWS_AT_ONCE):
                    yield pa.Table.from_batches([batch])
            return
        with file.open("rb") as stream:
            header = stream.readline().decode("utf-8-sig").strip()
        if not header:
            return
        # The first pass over the header tells the names; inferred types would turn the key "007" into 7.
        names = pacsv.read_csv(pa.BufferReader((header + "\n").encode())).column_names
        convert = pacsv.ConvertOptions(column_types={name: pa.string() for name in names})
        with pacsv.open_csv(file, convert_options=convert) as reader:
            yield reader.schema.empty_table()
            for batch in reader:
                table = pa.Table.from_batches([batch])
                for start in range(0, table.num_rows, ROWS_AT_ONCE):
                    yield table.slice(start, ROWS_AT_ONCE)
    except (pa.ArrowException, UnicodeDecodeError) as error:
        raise InvalidRequest(f"{file} cannot be read: {error}.", file=str(file)) from error


def _check_names(file: Path, table: pa.Table, how: EventFormat, report: Callable[[str], None] | None) -> None:
    for name in REQUIRED:
        if how.name_of(name) not in table.column_names:
            raise InvalidRequest(
                f"{file}: column {how.name_of(name)!r} is missing; it has {', '.join(table.column_names)}. "
                f"Where it has another name, say so: --column {name}=ITS_NAME.",
                file=str(file),
                column=name,
            )
    known = {how.name_of(name) for name in EVENT_SCHEMA.names}
    unread = [name for name in table.column_names if name not in known]
    if unread and report:
        report(f"{file}: not read: {', '.join(unread)}")


def _events(file: Path, first_row: int, raw: pa.Table, how: EventFormat) -> pa.Table:
    try:
        columns = {}
        for name in EVENT_SCHEMA.names:
            if how.name_of(name) in raw.column_names:
                columns[name] = _convert(name, raw.column(how.name_of(name)), how)
        return check_events(pa.table(columns))
    except BedplateError as error:
        name, row = error.context.get("column"), error.context.get("row")
        if name is None or row is None:
            raise InvalidRequest(f"{file}: {error.detail}", file=str(file)) from error
        what = error.detail.removeprefix(place(name, row))
        raise InvalidRequest(
            f"{file}, row {first_row + row + 1}, column {how.name_of(name)!r}: {what}",
            file=str(file),
            column=name,
            row=first_row + row + 1,
        ) from error


def _convert(name: str, values: pa.ChunkedArray, how: EventFormat) -> pa.ChunkedArray:
    if name == "event_time":
        return _times(values, how)
    if name == "label":
        return _labels(values)
    if name == "features":
        return _features(values)
    return values.cast(pa.string()) if pa.types.is_integer(values.type) else values


def _times(values: pa.ChunkedArray, how: EventFormat) -> pa.ChunkedArray:
    kind = values.type
    if pa.types.is_timestamp(kind):
        if kind.tz is None and not how.assume_utc:
            raise InvalidRequest("Column 'event_time' has no zone; where it is UTC, say so: --assume-utc.")
        return values.cast(pa.timestamp(kind.unit, "UTC")) if kind.tz is None else values
    if how.time_unit != "iso8601":
        return _epoch_times(values, _PER_UNIT[how.time_unit])
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        raise InvalidRequest(
            f"Column 'event_time' is {kind}; epoch times need their unit: --time-unit s, ms or us."
        )
    try:
        # Arrow's own parser takes what has a zone, a hundred times faster than a loop.
        return values.cast(TIME)
    except pa.ArrowInvalid:
        texts = values.to_pylist()
        times = [_iso_time(text, row, how.assume_utc) for row, text in enumerate(texts)]
        return pa.chunked_array([pa.array(times, pa.int64()).cast(TIME)])


def _iso_time(text: str | None, row: int, assume_utc: bool) -> int:
    try:
        time = datetime.fromisoformat((text or "").strip())
    except ValueError:
        unit = (
            " Where these are epoch times, tell the unit: --time-unit s, ms or us." if _digits(text) else ""
        )
        raise bad_value(
            "event_time", row, f"{text!r} is no ISO 8601 time like 2026-11-22T10:00:00Z.{unit}"
        ) from None
    if time.tzinfo is None:
        if not assume_utc:
            raise bad_value(
                "event_time", row, f"{text!r} has no zone; where it is UTC, say so: --assume-utc."
            )
        time = time.replace(tzinfo=UTC)
    return to_microseconds(time)


def _digits(text: str | None) -> bool:
    return (text or "").replace(".", "", 1).isdigit()


def _epoch_times(values: pa.ChunkedArray, per_unit: int) -> pa.ChunkedArray:
    try:
        whole = values.cast(pa.int64())
        return pc.multiply_checked(whole, per_unit)
    except pa.ArrowInvalid:
        numbers = _numbers("event_time", values)
    # Seconds with a fraction: float64 keeps a microsecond until the year 2255.
    microseconds = pc.round(pc.multiply(numbers, float(per_unit)))
    finite = pc.fill_null(pc.is_finite(microseconds), False)
    row = pc.index(pc.and_(finite, pc.less(pc.abs(microseconds), 2.0**62)), False).as_py()
    if row >= 0:
        raise bad_value("event_time", row, f"{values[row].as_py()!r} is no epoch time; check the unit.")
    return microseconds.cast(pa.int64())


def _numbers(name: str, values: pa.ChunkedArray) -> pa.ChunkedArray:
    """Numbers, or text of them, as float64; empty text is null."""
    if not (pa.types.is_string(values.type) or pa.types.is_large_string(values.type)):
        try:
            return values.cast(pa.float64(), safe=False)
        except pa.ArrowNotImplementedError:
            raise InvalidRequest(f"Column {name!r} is {values.type}; it must hold numbers.") from None
    texts = pc.utf8_trim_whitespace(values)
    texts = pc.if_else(pc.equal(texts, ""), None, texts)
    try:
        return texts.cast(pa.float64())
    except pa.ArrowInvalid:
        for row, text in enumerate(texts.to_pylist()):
            if text is not None and not _is_number(text):
                raise bad_value(name, row, f"{text!r} is no number.") from None
        return pa.chunked_array([[None if text is None else float(text) for text in texts.to_pylist()]])


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _labels(values: pa.ChunkedArray) -> pa.ChunkedArray:
    if pa.types.is_boolean(values.type):
        return values.cast(pa.float32())
    return _numbers("label", values)


def _features(values: pa.ChunkedArray) -> pa.ChunkedArray:
    if pa.types.is_struct(values.type):
        texts = [None if row is None else json.dumps(row, default=str) for row in values.to_pylist()]
        return pa.chunked_array([pa.array(texts, pa.string())])
    if pa.types.is_string(values.type) or pa.types.is_large_string(values.type):
        return pc.if_else(pc.equal(values, ""), None, values)
    return values
