"""Outcomes: the labels of impressions, which arrive later and are joined into training sets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np
import pyarrow as pa
from sqlalchemy import insert, select

from bedplate.errors import BatchTooLarge, Conflict, EmptyBatch, EventInFuture, InvalidRequest
from bedplate.references import check_name
from bedplate.wire.store import Outcome, OutcomesAccepted
from bedplate_store import sequences
from bedplate_store.database import ReadSession, WriteSession
from bedplate_store.event_columns import MAX_BATCH_ROWS, encoded_strings, time_column
from bedplate_store.tables.records import OutcomeRow
from bedplate_store.times import instant, microseconds

_CLOCK_TOLERANCE = timedelta(seconds=60)
_REQUESTS_PER_QUERY = 5_000
_Key = tuple[str, str, str]


@dataclass(frozen=True, slots=True)
class OutcomeColumns:
    """n outcomes: strings, finite labels, and int64 microseconds UTC, as lists of n."""

    request_id: list[str]
    item: list[str]
    task: list[str]
    label: list[float]
    outcome_time_us: list[int]

    @classmethod
    def from_wire(cls, outcomes: Sequence[Outcome]) -> OutcomeColumns:
        return cls(
            request_id=[outcome.request_id for outcome in outcomes],
            item=[outcome.item for outcome in outcomes],
            task=[outcome.task for outcome in outcomes],
            label=_single_precision([outcome.label for outcome in outcomes]),
            outcome_time_us=[microseconds(outcome.outcome_time) for outcome in outcomes],
        )

    @classmethod
    def from_arrow(cls, table: pa.Table) -> OutcomeColumns:
        """Columns ``request_id, item`` (string), ``label`` (float), ``outcome_time`` (timestamp, or int64 us
        UTC) and optionally ``task`` (string; "label" where absent).

        Raises:
            InvalidRequest: a column is missing, of the wrong type, has nulls or holds something not allowed.
        """
        for name in ("request_id", "item", "label", "outcome_time"):
            if name not in table.column_names:
                raise InvalidRequest(
                    f"The outcomes have no column {name!r}; they need request_id, item, label, outcome_time."
                )
        labels_column = table.column("label")
        kind = labels_column.type
        if not (pa.types.is_floating(kind) or pa.types.is_integer(kind)) or labels_column.null_count:
            raise InvalidRequest("Column 'label' must be a float without nulls.", column="label")
        tasks = ["label"] * table.num_rows
        if "task" in table.column_names:
            encoded = encoded_strings(table, "task", 63)
            for name in encoded.dictionary.to_pylist():
                check_name(name, "task")
            tasks = encoded.to_pylist()
        return cls(
            request_id=encoded_strings(table, "request_id", 64).to_pylist(),
            item=encoded_strings(table, "item", 256).to_pylist(),
            task=tasks,
            label=_single_precision(labels_column.cast(pa.float64()).to_pylist()),
            outcome_time_us=time_column(table, "outcome_time").tolist(),
        )


def record(
    session: WriteSession, surface: str, outcomes: Sequence[Outcome] | OutcomeColumns, *, now: datetime
) -> OutcomesAccepted:
    """Take in the labels of impressions of ``surface``, all or none; one that is known already is counted.

    Their impressions need not be in the log yet. Request ids are the surface's own: those of another one
    neither count nor conflict.

    Raises:
        EmptyBatch, BatchTooLarge: no outcomes, or over 100,000.
        InvalidRequest: a label is not finite.
        EventInFuture: an outcome lies more than 60 s after ``now``.
        Conflict: an outcome of this (request_id, item, task) of the surface is known with another
            label.
    """
    columns = outcomes if isinstance(outcomes, OutcomeColumns) else OutcomeColumns.from_wire(outcomes)
    _check(columns, now)
    # Taking the sequence also locks it: nobody else adds outcomes between our look and our write.
    first = sequences.advance(session, "outcome", len(columns.label))
    known = _known(session, surface, sorted(set(columns.request_id)))
    fresh: list[dict[str, object]] = []
    keys = zip(columns.request_id, columns.item, columns.task, strict=True)
    for row, key in enumerate(keys):
        label = columns.label[row]
        if key not in known:
            known[key] = label
            request_id, item, task = key
            fresh.append(
                {
                    "surface": surface,
                    "request_id": request_id,
                    "item": item,
                    "task": task,
                    "label": label,
                    "outcome_time": columns.outcome_time_us[row],
                    "sequence": first + row,
                }
            )
        elif known[key] != label:
            raise _conflict(row, key, known[key], label)
    if fresh:
        session.connection().execute(insert(OutcomeRow), fresh)
    return OutcomesAccepted(accepted=len(fresh), duplicates=len(columns.label) - len(fresh))


def labels(
    session: ReadSession,
    surface: str,
    task: str,
    request_ids: Sequence[str],
    *,
    up_to: datetime | None,
    up_to_sequence: int,
) -> pa.Table:
    """The outcomes of ``task`` of these requests of ``surface`` that happened no later than ``up_to``.

    Returns:
        columns request_id, item (string) and label (float32); one row for each (request_id, item). Outcomes
        taken in after ``up_to_sequence`` are not seen. With ``up_to`` None it does not
        matter when they happened.
    """
    found: list[tuple[str, str, float]] = []
    for start in range(0, len(request_ids), _REQUESTS_PER_QUERY):
        query = select(OutcomeRow.request_id, OutcomeRow.item, OutcomeRow.label).where(
            OutcomeRow.surface == surface,
            OutcomeRow.request_id.in_(request_ids[start : start + _REQUESTS_PER_QUERY]),
            OutcomeRow.task == task,
            OutcomeRow.sequence <= up_to_sequence,
        )
        if up_to is not None:
            query = query.where(OutcomeRow.outcome_time <= microseconds(up_to))
        found.extend((request_id, item, label) for request_id, item, label in session.execute(query))
    columns = zip(*found, strict=True) if found else ((), (), ())
    kinds = (pa.string(), pa.string(), pa.float32())
    arrays = [pa.array(column, kind) for column, kind in zip(columns, kinds, strict=True)]
    return pa.table(arrays, names=["request_id", "item", "label"])


def _check(columns: OutcomeColumns, now: datetime) -> None:
    rows = len(columns.label)
    if rows == 0:
        raise EmptyBatch("The batch has no outcomes; send at least one.")
    if rows > MAX_BATCH_ROWS:
        raise BatchTooLarge(
            f"The batch has {rows:,} outcomes; send at most {MAX_BATCH_ROWS:,} at once.",
            limit=MAX_BATCH_ROWS,
        )
    infinite = np.flatnonzero(~np.isfinite(np.array(columns.label)))
    if len(infinite):
        row = int(infinite[0])
        raise InvalidRequest(f"Outcome {row} has the label {columns.label[row]}; send a finite one.", row=row)
    late = np.flatnonzero(np.array(columns.outcome_time_us) > microseconds(now + _CLOCK_TOLERANCE))
    if len(late):
        row = int(late[0])
        raise EventInFuture(
            f"Outcome {row} happened at {instant(columns.outcome_time_us[row]).isoformat()}, after the "
            f"server's clock ({now.isoformat()}); send outcomes once they have happened.",
            row=row,
        )


def _known(session: ReadSession, surface: str, request_ids: list[str]) -> dict[_Key, float]:
    known: dict[_Key, float] = {}
    for start in range(0, len(request_ids), _REQUESTS_PER_QUERY):
        rows = session.execute(
            select(OutcomeRow.request_id, OutcomeRow.item, OutcomeRow.task, OutcomeRow.label).where(
                OutcomeRow.surface == surface,
                OutcomeRow.request_id.in_(request_ids[start : start + _REQUESTS_PER_QUERY]),
            )
        )
        for request_id, item, task, label in rows:
            known[request_id, item, task] = label
    return known


def _conflict(row: int, key: _Key, known: float, label: float) -> Conflict:
    request_id, item, task = key
    return Conflict(
        f"Outcome {row}: {task!r} of item {item!r} in request {request_id!r} is {label} here, "
        f"but was {known} before; an outcome does not change once it is told.",
        row=row,
    )


def _single_precision(labels: Sequence[float]) -> list[float]:
    # Training reads float32; rounding here makes a label equal to itself by whichever way it came.
    rounded: list[float] = np.array(labels, np.float32).tolist()
    return rounded
