"""The files of a training set: tables ``rows`` and ``requests``, cut alike, as immutable Arrow objects."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from bedplate_store.arrow_files import arrow_bytes, read_arrow
from bedplate_store.objects import ObjectStore

TableName = Literal["rows", "requests"]
ROWS_PER_FILE = 131_072


@dataclass(frozen=True, slots=True)
class FileEntry:
    """One file of a published training set, an Arrow IPC file in object storage."""

    name: str
    table: TableName
    rows: int
    bytes: int
    sha256: str
    object_key: str


def write_files(
    objects: ObjectStore, training_set_id: str, parts: Sequence[dict[str, Any]]
) -> list[FileEntry]:
    """Join parts into files of about 131,072 rows and number their requests from 0 throughout.

    A file ends with the request in which it is full: its boundaries follow from the rows alone, not from how
    they were cut into parts.

    Raises:
        NotFound, InternalError: a part is gone, or was damaged in storage.
    """
    written: list[FileEntry] = []
    rows: pa.Table | None = None
    requests: pa.Table | None = None
    first_request = 0
    for part in parts:
        if part["parts"] is None:
            continue
        more_rows, more_requests = (
            _shifted(
                read_arrow(objects, part["parts"][name]["key"], part["parts"][name]["sha256"]), first_request
            )
            for name in ("rows", "requests")
        )
        first_request += more_requests.num_rows
        rows = more_rows if rows is None else pa.concat_tables([rows, more_rows])
        requests = more_requests if requests is None else pa.concat_tables([requests, more_requests])
        while rows.num_rows >= ROWS_PER_FILE:
            row_cut, request_cut = _cut(rows, requests)
            written += _write_pair(
                objects, training_set_id, len(written) // 2, rows[:row_cut], requests[:request_cut]
            )
            rows, requests = rows[row_cut:], requests[request_cut:]
    if rows is not None and requests is not None and rows.num_rows:
        written += _write_pair(objects, training_set_id, len(written) // 2, rows, requests)
    return written


def _shifted(table: pa.Table, offset: int) -> pa.Table:
    index = pa.array(table["request_index"].to_numpy() + offset)
    return table.set_column(0, "request_index", index)


def _cut(rows: pa.Table, requests: pa.Table) -> tuple[int, int]:
    """Where the first file ends: after the request in which ROWS_PER_FILE is reached."""
    row_requests = rows["request_index"].to_numpy()
    last_request = row_requests[ROWS_PER_FILE - 1]
    row_cut = int(np.searchsorted(row_requests, last_request, side="right"))
    return row_cut, int(last_request - requests["request_index"][0].as_py() + 1)


def _write_pair(
    objects: ObjectStore, training_set_id: str, number: int, rows: pa.Table, requests: pa.Table
) -> list[FileEntry]:
    tables: tuple[tuple[TableName, pa.Table], ...] = (("rows", rows), ("requests", requests))
    entries = []
    for name, table in tables:
        data = arrow_bytes(table)
        digest = sha256(data).hexdigest()
        key = f"training-sets/{training_set_id}/{digest}.arrow"
        objects.put(key, memoryview(data))
        entries.append(
            FileEntry(
                name=f"{name}-{number:05d}.arrow",
                table=name,
                rows=table.num_rows,
                bytes=data.size,
                sha256=digest,
                object_key=key,
            )
        )
    return entries


def read_files(objects: ObjectStore, entries: Sequence[FileEntry], table: TableName) -> Iterator[pa.Table]:
    """The tables of the files of one kind, in order, each checked against its digest.

    Raises:
        NotFound, InternalError: a file is gone, or was damaged in storage.
    """
    for entry in entries:
        if entry.table == table:
            yield read_arrow(objects, entry.object_key, entry.sha256)
