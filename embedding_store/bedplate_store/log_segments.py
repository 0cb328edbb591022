"""Sealed segments of the impression log: Arrow files, one row for each impression, never changed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from sqlalchemy import select

from bedplate_store.arrow_files import arrow_bytes, read_arrow
from bedplate_store.database import Database
from bedplate_store.impression_records import ImpressionRecord
from bedplate_store.objects import ObjectStore
from bedplate_store.tables.records import LogSegmentRow
from bedplate_store.times import microseconds

LOG_COLUMNS = ("request_id", "user", "served_at", "position", "item", "expert", "score")
"""What every segment has, before ``tae:VERSION`` and ``prediction:VERSION`` of each of its versions."""

_SEGMENT_BYTES = 64 * 2**20


@dataclass(frozen=True, slots=True)
class SealedSegment:
    """A segment written to object storage and not yet known to the database."""

    surface: str
    object_key: str
    sha256: str
    served_first_us: int
    served_last_us: int
    rows: int
    request_ids: list[str]
    bytes: int
    versions: list[str]


def write_segments(objects: ObjectStore, records: Sequence[ImpressionRecord]) -> list[SealedSegment]:
    """Write records into segments of one surface, one set of versions and about 64 MiB each."""
    groups: dict[tuple[Any, ...], list[ImpressionRecord]] = {}
    for record in records:
        columns = tuple(
            (version, record.tae[version].shape[1], str(record.tae[version].dtype))
            for version in sorted(record.tae)
        )
        groups.setdefault((record.surface, columns), []).append(record)
    return [_write_segment(objects, chunk) for _, group in sorted(groups.items()) for chunk in _chunks(group)]


def scan(
    database: Database,
    objects: ObjectStore,
    surface: str,
    window: tuple[datetime, datetime],
    versions: Sequence[str],
    *,
    up_to_sequence: int | None = None,
) -> Iterator[pa.Table]:
    """The sealed impressions with ``window[0] <= served_at < window[1]``, a table for each segment.

    Columns: :data:`LOG_COLUMNS`, then ``tae:V`` and ``prediction:V`` for those of ``versions`` that the
    segment has. Rows are sorted by (served_at, request_id, position) within a table, not between tables. With
    ``up_to_sequence`` segments sealed after that log sequence are not seen.
    """
    first, end = pa.scalar(window[0], _TIME), pa.scalar(window[1], _TIME)
    for key, digest in overlapping(database, surface, window, up_to_sequence=up_to_sequence):
        table = read_arrow(objects, key, digest)
        names = list(LOG_COLUMNS)
        for version in versions:
            if f"tae:{version}" in table.column_names:
                names += [f"tae:{version}", f"prediction:{version}"]
        table = table.select(names)
        served_at = table["served_at"]
        inside = pc.and_(pc.greater_equal(served_at, first), pc.less(served_at, end))
        if not pc.all(inside).as_py():
            table = table.filter(inside)
        if table.num_rows:
            yield table


def overlapping(
    database: Database,
    surface: str,
    window: tuple[datetime, datetime],
    *,
    up_to_sequence: int | None = None,
) -> list[tuple[str, str]]:
    """(object key, SHA-256) of the segments that may hold impressions of the window, in log order."""
    query = (
        select(LogSegmentRow.object_key, LogSegmentRow.sha256)
        .where(
            LogSegmentRow.surface == surface,
            LogSegmentRow.served_first < microseconds(window[1]),
            LogSegmentRow.served_last >= microseconds(window[0]),
        )
        .order_by(LogSegmentRow.sequence)
    )
    if up_to_sequence is not None:
        query = query.where(LogSegmentRow.sequence <= up_to_sequence)
    with database.read() as session:
        return [(key, digest) for key, digest in session.execute(query)]


_TIME = pa.timestamp("us", tz="UTC")


def _chunks(records: list[ImpressionRecord]) -> Iterator[list[ImpressionRecord]]:
    chunk: list[ImpressionRecord] = []
    size = 0
    for record in records:
        chunk.append(record)
        size += sum(vectors.nbytes for vectors in record.tae.values()) + 64 * len(record.items)
        if size >= _SEGMENT_BYTES:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def _write_segment(objects: ObjectStore, records: list[ImpressionRecord]) -> SealedSegment:
    records = sorted(records, key=lambda record: (record.served_at_us, record.request_id))
    data = arrow_bytes(_table(records))
    digest = sha256(data).hexdigest()
    surface = records[0].surface
    key = f"log/{surface}/{digest}.arrow"
    objects.put(key, memoryview(data))
    return SealedSegment(
        surface=surface,
        object_key=key,
        sha256=digest,
        served_first_us=records[0].served_at_us,
        served_last_us=records[-1].served_at_us,
        rows=sum(len(record.items) for record in records),
        request_ids=[record.request_id for record in records],
        bytes=data.size,
        versions=sorted(records[0].tae),
    )


def _table(records: list[ImpressionRecord]) -> pa.Table:
    counts = np.array([len(record.items) for record in records])
    owner = np.repeat(np.arange(len(records)), counts)
    position = np.concatenate([np.arange(count, dtype=np.int32) for count in counts])

    def per_request(values: list[Any], kind: pa.DataType) -> pa.Array:
        return pa.array(values, kind).take(pa.array(owner))

    no_score = np.float32(np.nan)
    scores = np.concatenate(
        [
            record.scores if record.scores is not None else np.full(len(record.items), no_score)
            for record in records
        ]
    )
    unscored = np.array([record.scores is None for record in records])[owner]
    columns = {
        "request_id": per_request([record.request_id for record in records], pa.string()),
        "user": per_request([record.user for record in records], pa.string()),
        "served_at": per_request([record.served_at_us for record in records], _TIME),
        "position": pa.array(position, pa.int32()),
        "item": pa.array([item for record in records for item in record.items], pa.string()),
        "expert": per_request([record.expert for record in records], pa.string()),
        "score": pa.array(scores.astype(np.float32), pa.float32(), mask=unscored),
    }
    for version in sorted(records[0].tae):
        vectors = np.concatenate([record.tae[version] for record in records])
        columns[f"tae:{version}"] = pa.FixedSizeListArray.from_arrays(
            pa.array(vectors.reshape(-1)), vectors.shape[1]
        )
        columns[f"prediction:{version}"] = pa.array(
            np.concatenate([record.predictions[version] for record in records]), pa.float32()
        )
    metadata = {"bedplate.format": "impression-log/1", "bedplate.surface": records[0].surface}
    return pa.table(columns).replace_schema_metadata(metadata)
