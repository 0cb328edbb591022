"""Attributes: columns beside the vectors that searches filter by. docs/format.md has the file.

Shapes: n rows given, r rows stored.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence, Set
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from bedplate.errors import Conflict, InvalidRequest

TYPES: dict[str, Any] = {
    "int64": pa.int64(),
    "float64": pa.float64(),
    "bool": pa.bool_(),
    "string": pa.string(),
    "list<string>": pa.list_(pa.string()),
}
ATTRIBUTES_MAX = 64
_NAME_MAX = 64
_RESERVED = ("key", "vector")
_ROWS_PER_BATCH = 1 << 16

Columns = Mapping[str, Any]
"""Attribute columns by name, as callers pass them: sequences with None, or Arrow arrays."""


def type_name(type_: Any) -> str:
    """The name of an Arrow type of :data:`TYPES`."""
    return next(name for name, known in TYPES.items() if known == type_)


def schema_of(types: Mapping[str, str]) -> pa.Schema:
    """The Arrow schema of attributes by name and type name, sorted by name."""
    return pa.schema([(name, TYPES[types[name]]) for name in sorted(types)])


def parse(columns: Columns, rows: int, known: Mapping[str, str]) -> pa.Table | None:
    """The columns as a table [n] of the types of :data:`TYPES`; None where there are none.

    ``known``: the attributes that the space has. Integers fit a float64 attribute.

    Raises:
        InvalidRequest: a name that is not allowed, too many, a column of another length or of no known type.
        Conflict: the space has the attribute with another type.
    """
    arrays = {}
    for name in sorted(columns):
        check_name(name)
        array = _normal(name, columns[name], known.get(name))
        if len(array) != rows:
            raise InvalidRequest(
                f"attribute {name!r} has {len(array)} values for {rows} keys: send one each."
            )
        if array.type != pa.null():
            arrays[name] = array
    _check_count({*known, *arrays})
    return pa.table(arrays) if arrays else None


def types_of(table: pa.Table | None) -> dict[str, str]:
    """The table's attributes and their types' names."""
    return {} if table is None else {field.name: type_name(field.type) for field in table.schema}


def with_new(known: Mapping[str, str], types: Mapping[str, str]) -> dict[str, str]:
    """The attributes of a space after a write of ``types``: who comes first decides the type.

    Raises:
        InvalidRequest: too many.
        Conflict: the space has one of them with another type.
    """
    for name, given in types.items():
        _check_type(name, given, known.get(name))
    _check_count({*known, *types})
    return {**types, **known}


def check_name(name: str) -> None:
    """Refuse a name that no attribute may have (InvalidRequest)."""
    if not 0 < len(name) <= _NAME_MAX or name in _RESERVED:
        raise InvalidRequest(
            f"{name!r} is no name of an attribute: use 1 to {_NAME_MAX} characters, not key and not vector."
        )


def to_bytes(table: pa.Table) -> bytes:
    """The file of the attributes of a segment."""
    sink = io.BytesIO()
    with AttributesWriter(sink, table.schema) as writer:
        writer.append(table)
    return sink.getvalue()


def read(data: NDArray[np.uint8]) -> pa.Table | None:
    """The attributes [r] in the bytes of their file, over the same memory; no bytes: none."""
    if len(data) == 0:
        return None
    return pa.ipc.open_file(pa.BufferReader(pa.py_buffer(data))).read_all()


class AttributesWriter:
    """Writes the file in batches of a fixed size, so that its bytes do not depend on how the rows come."""

    def __init__(self, sink: BinaryIO | str, schema: pa.Schema) -> None:
        self._schema = schema
        self._writer = pa.ipc.new_file(sink, schema)
        self._waiting: list[pa.Table] = []
        self._rows = 0

    def append(self, table: pa.Table) -> None:
        """The next rows; attributes that ``table`` lacks are null."""
        self._waiting.append(conformed(table, self._schema, table.num_rows))
        self._rows += table.num_rows
        while self._rows >= _ROWS_PER_BATCH:
            self._write(_ROWS_PER_BATCH)

    def _write(self, rows: int) -> None:
        waiting = pa.concat_tables(self._waiting)
        # Taken, not sliced: a copy has no bits and bytes of the rows around it.
        batch = waiting.slice(0, rows).take(pa.array(np.arange(rows))).combine_chunks()
        self._writer.write_table(batch, max_chunksize=rows)
        rest = waiting.slice(rows)
        self._waiting, self._rows = [rest], rest.num_rows

    def __enter__(self) -> AttributesWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._rows and kind is None:
            self._write(self._rows)
        self._writer.close()


def conformed(table: pa.Table | None, schema: pa.Schema, rows: int) -> pa.Table:
    """``table`` with the columns of ``schema``, null where it has none."""
    columns = []
    for field in schema:
        if table is not None and field.name in table.column_names:
            columns.append(table.column(field.name).cast(field.type))
        else:
            columns.append(pa.chunked_array([pa.nulls(rows, field.type)]))
    return pa.table(columns, schema=schema)


def unified(tables: Sequence[pa.Table | None]) -> pa.Schema:
    """All attributes of the tables; where one has integers and another floats, floats."""
    types: dict[str, str] = {}
    for table in tables:
        for field in table.schema if table is not None else ():
            name = type_name(field.type)
            types[field.name] = name if types.get(field.name, name) == name else "float64"
    return schema_of(types)


def gathered(
    tables: Sequence[pa.Table | None], schema: pa.Schema, source: NDArray[np.int64], row: NDArray[np.int64]
) -> pa.Table:
    """The attributes of the rows ``row`` [n] of the tables ``source`` [n]."""
    parts, places = [], [np.empty(0, np.int64)]
    for ordinal in np.unique(source):
        mine = np.flatnonzero(source == ordinal)
        table = tables[ordinal]
        taken = None if table is None else table.take(pa.array(row[mine]))
        parts.append(conformed(taken, schema, len(mine)))
        places.append(mine)
    if not parts:
        return conformed(None, schema, 0)
    return pa.concat_tables(parts).take(pa.array(np.argsort(np.concatenate(places), kind="stable")))


def _check_count(names: Set[str]) -> None:
    if len(names) > ATTRIBUTES_MAX:
        raise InvalidRequest(f"a space has at most {ATTRIBUTES_MAX} attributes: send fewer.")


def _check_type(name: str, given: str, known: str | None) -> None:
    if known is not None and given != known and (given, known) != ("int64", "float64"):
        raise Conflict(
            f"attribute {name!r} is {known} in this space and came as {given}: send {known}, or use "
            "another name.",
            attribute=name,
            type=known,
        )


def _normal(name: str, values: Any, known: str | None) -> Any:
    """An array of a type of :data:`TYPES` (of the known one), or of nulls where nothing tells the type."""
    try:
        array = values if isinstance(values, pa.Array | pa.ChunkedArray) else pa.array(values)
        if isinstance(array, pa.ChunkedArray):
            array = array.combine_chunks()
        if pa.types.is_dictionary(array.type):
            array = array.dictionary_decode()
        given = _type_of(array.type)
        if given is None:
            raise pa.ArrowInvalid(f"type {array.type}")
        if given == "null":
            return array if known is None else array.cast(TYPES[known])
        _check_type(name, given, known)
        return array.cast(TYPES[known or given])
    except (pa.ArrowException, OverflowError) as error:
        raise InvalidRequest(
            f"attribute {name!r} holds what is not one of {', '.join(TYPES)} ({error}).", attribute=name
        ) from None


def _type_of(type_: Any) -> str | None:
    kinds = pa.types
    if kinds.is_null(type_):
        return "null"
    if kinds.is_integer(type_):
        return "int64"
    if kinds.is_floating(type_):
        return "float64"
    if kinds.is_boolean(type_):
        return "bool"
    if kinds.is_string(type_) or kinds.is_large_string(type_):
        return "string"
    if kinds.is_list(type_) or kinds.is_large_list(type_):
        return "list<string>" if _type_of(type_.value_type) in ("string", "null") else None
    return None
