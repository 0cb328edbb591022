"""The point-in-time join: impressions with the embeddings they were served with, their labels, and the
history that could be seen then.

Everything it reads is bounded by the training set's pins, so a retry, or a later build with the same pins,
reads the same and writes the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from bedplate.errors import Conflict
from bedplate.wire.store import TrainingSetCreate
from bedplate_store import log_segments, outcomes, timelines
from bedplate_store.arrow_files import arrow_bytes
from bedplate_store.database import Database
from bedplate_store.objects import ObjectStore
from bedplate_store.tables.records import TrainingSetRow
from bedplate_store.times import instant

_KEY_COLUMNS = ["request_id", "user", "served_at", "position", "item"]


@dataclass(frozen=True, slots=True)
class Pins:
    """The last ingest sequences a training set sees."""

    event: int
    outcome: int
    log_segment: int


def join_partition(database: Database, objects: ObjectStore, params: dict[str, Any]) -> dict[str, Any]:
    """Build the part of a training set that was served in ``[start_us, end_us)``.

    Args:
        params: of the partition: ``training_set`` (its id), ``start_us`` and ``end_us`` (microseconds UTC).

    Returns:
        the partition's result: counts of rows, requests, unlabelled and incomplete rows (both left out), and
        the two content-addressed part objects, or None where there are no rows.

    Raises:
        NotFound: there is no such training set.
        Conflict: the log holds a version's embeddings in two shapes.
    """
    with database.read() as session:
        row = session.get_one(TrainingSetRow, params["training_set"])
    definition = TrainingSetCreate.model_validate(row.definition)
    pins = Pins(**row.pins)
    window = (instant(params["start_us"]), instant(params["end_us"]))
    impressions, incomplete = _impressions(database, objects, definition, window, pins)
    result: dict[str, Any] = {"rows": 0, "requests": 0, "unlabelled": 0, "incomplete": incomplete}
    if impressions is None:
        return {**result, "parts": None}
    rows, unlabelled = _labelled(database, definition, pins, impressions)
    result["unlabelled"] = unlabelled
    if rows.num_rows == 0:
        return {**result, "parts": None}
    row_table, requests = _split(rows, definition)
    request_table = _with_history(database, definition, pins, requests)
    prefix = f"{parts_prefix(row.id)}{params['start_us']}"
    parts = {
        "rows": _put(objects, f"{prefix}-rows", row_table),
        "requests": _put(objects, f"{prefix}-requests", request_table),
    }
    return {**result, "rows": row_table.num_rows, "requests": request_table.num_rows, "parts": parts}


def parts_prefix(training_set_id: str) -> str:
    """Where the joined parts lie until the training set is published."""
    return f"training-sets/{training_set_id}/parts/"


def _impressions(
    database: Database,
    objects: ObjectStore,
    definition: TrainingSetCreate,
    window: tuple[datetime, datetime],
    pins: Pins,
) -> tuple[pa.Table | None, int]:
    """The logged impressions that have all versions, and how many have not."""
    value_columns = [
        name for version in definition.versions for name in (f"tae:{version}", f"prediction:{version}")
    ]
    tables: list[pa.Table] = []
    incomplete = 0
    for table in log_segments.scan(
        database,
        objects,
        definition.surface,
        window,
        definition.versions,
        up_to_sequence=pins.log_segment,
    ):
        if not set(value_columns) <= set(table.column_names):
            incomplete += table.num_rows
            continue
        table = table.select(_KEY_COLUMNS + value_columns)
        if tables and table.schema.types != tables[0].schema.types:
            raise Conflict(
                f"The impression log of {definition.surface!r} holds embeddings of one version in two "
                f"shapes: {tables[0].schema.types} and {table.schema.types}. Choose a window that has one."
            )
        tables.append(table.replace_schema_metadata(None))
    return (pa.concat_tables(tables) if tables else None), incomplete


def _labelled(
    database: Database, definition: TrainingSetCreate, pins: Pins, impressions: pa.Table
) -> tuple[pa.Table, int]:
    """The impressions that have a label, sorted (served_at, request_id, position), and how many have none."""
    keys = impressions.select(_KEY_COLUMNS)
    order = pc.sort_indices(
        keys,
        sort_keys=[("served_at", "ascending"), ("request_id", "ascending"), ("position", "ascending")],
    )
    keys = keys.take(order)
    with database.read() as session:
        labels = outcomes.labels(
            session,
            definition.surface,
            definition.task,
            pc.unique(keys["request_id"]).to_pylist(),
            up_to=definition.attribution_end,
            up_to_sequence=pins.outcome,
        )
    # NUL occurs in neither part, so the joined key is as unique as the pair.
    pairs = pc.binary_join_element_wise(keys["request_id"], keys["item"], "\x00")
    labelled_pairs = pc.binary_join_element_wise(labels["request_id"], labels["item"], "\x00")
    label_rows = pc.index_in(pairs, value_set=labelled_pairs)
    known = pc.is_valid(label_rows)
    # One gather of the wide columns, straight to their final places.
    rows = impressions.take(pc.filter(order, known))
    rows = rows.append_column("label", labels["label"].take(pc.filter(label_rows, known)))
    return rows, impressions.num_rows - rows.num_rows


def _split(rows: pa.Table, definition: TrainingSetCreate) -> tuple[pa.Table, pa.Table]:
    """Sorted rows as the two tables; request_index counts from 0 in this part."""
    codes = rows["request_id"].combine_chunks().dictionary_encode().indices.to_numpy().astype(np.int64)
    _, first_rows = np.unique(codes, return_index=True)
    columns = {
        "request_index": pa.array(codes),
        "item": rows["item"],
        "position": rows["position"],
        "label": rows["label"],
    }
    for version in definition.versions:
        for name in (f"tae:{version}", f"prediction:{version}"):
            columns[name] = rows[name]
    requests = rows.select(["request_id", "user", "served_at"]).take(pa.array(first_rows))
    return pa.table(columns), requests


def _with_history(
    database: Database, definition: TrainingSetCreate, pins: Pins, requests: pa.Table
) -> pa.Table:
    served_us = requests["served_at"].cast(pa.int64()).to_numpy()
    wanted = [
        (user, instant(at_us))
        for user, at_us in zip(requests["user"].to_pylist(), served_us.tolist(), strict=True)
    ]
    with database.read() as session:
        histories = timelines.read_many(
            session,
            wanted,
            limit=definition.history_length,
            surface=definition.surface,
            up_to_sequence=pins.event,
        )
    ages_ms = [
        (at_us - history.event_time_us) // 1000 for at_us, history in zip(served_us, histories, strict=True)
    ]
    return pa.table(
        {
            "request_index": pa.array(np.arange(requests.num_rows, dtype=np.int64)),
            "request_id": requests["request_id"],
            "user": requests["user"],
            "served_at": requests["served_at"],
            "history_item": _lists([history.item for history in histories], pa.string()),
            "history_action": _lists([history.action for history in histories], pa.string()),
            "history_age_ms": _lists([ages.tolist() for ages in ages_ms], pa.int64()),
        }
    )


def _lists(values: Sequence[Sequence[Any]], kind: pa.DataType) -> pa.Array:
    return pa.array(values, pa.list_(kind))


def _put(objects: ObjectStore, prefix: str, table: pa.Table) -> dict[str, Any]:
    data = arrow_bytes(table)
    digest = sha256(data).hexdigest()
    key = f"{prefix}-{digest}.arrow"
    objects.put(key, memoryview(data))
    return {"key": key, "sha256": digest}
