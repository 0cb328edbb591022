"""Events, the catalogue, timelines, outcomes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, TypeAlias

import pyarrow as pa

from bedplate.client.answers import read_document
from bedplate.client.effects import Request, Steps
from bedplate.client.requests import Listing, bulk, get, parameters, path
from bedplate.client.steps import Namespace, RunnerT, exchange, operation
from bedplate.codecs import (
    ARROW,
    check_events,
    check_items,
    check_outcomes,
    decode_table,
    encode_table,
    events_to_table,
    items_from_table,
    items_to_table,
    outcomes_to_table,
)
from bedplate.errors import BedplateError, InvalidRequest
from bedplate.wire.store import (
    Event,
    EventsAccepted,
    Item,
    ItemsAccepted,
    Outcome,
    OutcomesAccepted,
    Timeline,
)

ROWS_AT_ONCE = 50_000

EventData: TypeAlias = Sequence[Event] | Mapping[str, Any] | pa.Table
OutcomeData: TypeAlias = Sequence[Outcome] | Mapping[str, Any] | pa.Table
ItemData: TypeAlias = Sequence[Item] | Mapping[str, Mapping[str, Any]] | pa.Table


def _table(data: Any, from_documents: Callable[[Any], pa.Table]) -> pa.Table:
    if isinstance(data, pa.RecordBatch):
        return pa.Table.from_batches([data])
    if isinstance(data, pa.Table):
        return data
    if not isinstance(data, Mapping):
        return from_documents(data)
    try:
        return pa.table(dict(data))
    except (pa.ArrowException, TypeError, ValueError) as error:
        raise InvalidRequest(f"The columns do not make a table: {error}.") from error


class Events(Namespace[RunnerT]):
    """What users did."""

    @operation
    def send(
        self,
        events: EventData,
        *,
        allow_late: bool = False,
        progress: Callable[[int, int], None] | None = None,
    ) -> Steps[EventsAccepted]:
        """Send events, in requests of at most 50,000 rows; each request is accepted whole or not at all.

        Never retried: an event sent twice happened twice. Where a later request fails, the error's
        ``context["rows_accepted"]`` tells how many rows, from the first, are in.

        Args:
            events: documents, a mapping of columns, or a table: user, item, action, surface (string),
                event_time (timestamp with zone, or int64 microseconds since 1970 UTC); label (null or NaN:
                none) and features (JSON text) may be absent.
            allow_late: take events older than what was accepted before, too.
            progress: called with (rows accepted, rows in all).

        Raises:
            EmptyBatch, InvalidRequest, EventsOutOfOrder, EventInFuture, NotFound (a surface), Forbidden.
        """
        table = check_events(_table(events, events_to_table))
        accepted, sequence = 0, 0
        for start in range(0, table.num_rows, ROWS_AT_ONCE):
            body = encode_table(table.slice(start, ROWS_AT_ONCE))
            params = parameters(allow_late=allow_late or None)
            try:
                response = yield from bulk(path("events"), body, ARROW, params=params, idempotent=False)
            except BedplateError as error:
                error.context["rows_accepted"] = accepted
                raise
            answer = read_document(EventsAccepted, response)
            accepted, sequence = accepted + answer.accepted, answer.sequence
            if progress:
                progress(accepted, table.num_rows)
        return EventsAccepted(accepted=accepted, sequence=sequence)

    @operation
    def scan(self, start: datetime | None = None, end: datetime | None = None) -> Steps[pa.Table]:
        """Events with start <= event_time < end of all surfaces, as a table.

        Columns user, item, action, surface, event_time, label; ordered by user, event_time, ingest sequence.
        """
        params = parameters(start=start, end=end)
        request = Request("GET", path("events"), params, {"accept": ARROW}, idempotent=True)
        response = yield from exchange(request)
        return decode_table(response.content)


class Items(Namespace[RunnerT]):
    """The catalogue: items and their features."""

    @operation
    def put(self, items: ItemData) -> Steps[ItemsAccepted]:
        """Insert or replace catalogue entries, in requests of at most 50,000 rows.

        Args:
            items: documents, a mapping of key to features, or a table: key, features (JSON text).

        Raises:
            EmptyBatch, InvalidRequest.
        """
        if isinstance(items, Mapping):
            items = [Item(key=key, features=dict(features)) for key, features in items.items()]
        table = check_items(_table(items, items_to_table))
        accepted = 0
        for start in range(0, table.num_rows, ROWS_AT_ONCE):
            body = encode_table(table.slice(start, ROWS_AT_ONCE))
            response = yield from bulk(path("items"), body, ARROW, method="PUT")
            accepted += read_document(ItemsAccepted, response).accepted
        return ItemsAccepted(accepted=accepted)

    @operation
    def get(self, key: str) -> Steps[Item]:
        """Raises NotFound."""
        return get(path("items", key), Item)

    @operation
    def scan(self) -> Steps[Listing[Item]]:
        """The whole catalogue, by key."""
        request = Request("GET", path("items"), headers={"accept": ARROW}, idempotent=True)
        response = yield from exchange(request)
        return items_from_table(decode_table(response.content))


class Timelines(Namespace[RunnerT]):
    """What one user did, in time order."""

    @operation
    def read(
        self, user: str, *, at: datetime | None = None, limit: int | None = None, surface: str | None = None
    ) -> Steps[Timeline]:
        """The user's latest ``limit`` events strictly before ``at`` (None: now), oldest first.

        A user without events has an empty timeline.
        """
        return get(path("timelines", user), Timeline, parameters(at=at, limit=limit, surface=surface))


class Outcomes(Namespace[RunnerT]):
    """What came of impressions."""

    @operation
    def record(self, surface: str, outcomes: OutcomeData) -> Steps[OutcomesAccepted]:
        """Record the labels of impressions, in requests of at most 50,000 rows.

        The same outcome again counts as a duplicate, so an interrupted call can simply be made again.

        Args:
            outcomes: documents, a mapping of columns, or a table: request_id, item, task (absent: ``label``),
                label, outcome_time.

        Raises:
            Conflict: another label is known for the same (request, item, task) of the surface.
        """
        table = check_outcomes(_table(outcomes, outcomes_to_table))
        accepted, duplicates = 0, 0
        for start in range(0, table.num_rows, ROWS_AT_ONCE):
            body = encode_table(table.slice(start, ROWS_AT_ONCE))
            response = yield from bulk(path("outcomes"), body, ARROW, params=parameters(surface=surface))
            answer = read_document(OutcomesAccepted, response)
            accepted, duplicates = accepted + answer.accepted, duplicates + answer.duplicates
        return OutcomesAccepted(accepted=accepted, duplicates=duplicates)
