"""What happened: events, timelines, the items' catalogue, outcomes, the impression log."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

import pyarrow as pa
from fastapi import APIRouter, Path, Query, Request, Response
from fastapi.responses import StreamingResponse
from starlette.concurrency import run_in_threadpool

from bedplate.codecs import (
    ARROW,
    EVENT_SCAN_SCHEMA,
    ITEM_SCHEMA,
    JSON,
    check_items,
    decode_outcomes,
    decode_table,
    items_to_table,
    negotiate,
)
from bedplate.errors import InvalidRequest
from bedplate.references import NAME_PATTERN
from bedplate.wire.common import Page, Time
from bedplate.wire.store import (
    EventBatch,
    EventsAccepted,
    Item,
    ItemBatch,
    ItemsAccepted,
    OutcomeBatch,
    OutcomesAccepted,
    Timeline,
)
from bedplate_services import arrow_streams, bodies
from bedplate_services.auth import Caller
from bedplate_services.openapi import arrow_answer, bulk_body, problem_responses
from bedplate_services.ownership import require_contributor, require_surfaces
from bedplate_services.routes.common import House
from bedplate_store import events, items, outcomes, timelines
from bedplate_store.event_columns import EventColumns
from bedplate_store.outcomes import OutcomeColumns

router = APIRouter(prefix="/v1")
PathKey = Annotated[str, Path(min_length=1, max_length=256, pattern=r"^[^\x00]+$", examples=["1193"])]
QueryName = Annotated[str, Query(pattern=NAME_PATTERN, examples=["feed"])]
_EVENT_COLUMNS = "columns user, item, action, surface, event_time, and optionally label, features (JSON text)"
_OUTCOME_COLUMNS = "columns request_id, item, label, outcome_time, and optionally task; takes ?surface="


@router.post(
    "/events",
    summary="Ingest events",
    tags=["events"],
    openapi_extra=bulk_body(EventBatch, ARROW, _EVENT_COLUMNS),
    responses=problem_responses(404, 409),
)
async def ingest_events(
    house: House, caller: Caller, request: Request, allow_late: bool = False
) -> EventsAccepted:
    """All of the batch or nothing, 100,000 events at most. Within a user and surface the time never
    decreases; `allow_late` puts late events where they belong. For the owners of all surfaces that occur."""
    body = await bodies.read(request)

    def ingest() -> EventsAccepted:
        if body.media == ARROW:
            columns = EventColumns.from_arrow(decode_table(body.data))
        else:
            columns = EventColumns.from_wire(bodies.parse(EventBatch, body.data).events)
        with house.registry.read() as session:
            require_surfaces(session, caller, columns.surfaces)
        return house.store.transact(
            lambda session: events.ingest(session, columns, now=house.now(), allow_late=allow_late)
        )

    return await run_in_threadpool(ingest)


@router.get(
    "/events",
    summary="Stream the events of a window",
    tags=["events"],
    response_class=StreamingResponse,
    responses=arrow_answer("user, item, action, surface, event_time, label; by user, event_time, sequence"),
)
def scan_events(
    house: House, caller: Caller, start: Time | None = None, end: Time | None = None
) -> StreamingResponse:
    """start <= event_time < end, of all surfaces: what a foundation is trained on."""

    def batches() -> Iterator[pa.RecordBatch]:
        with house.store.read() as session:
            yield from timelines.scan(session, start, end)

    return arrow_streams.respond(arrow_streams.encode(EVENT_SCAN_SCHEMA, batches()))


@router.get("/timelines/{user:path}", summary="Show a user's timeline", tags=["events"])
def read_timeline(
    house: House,
    caller: Caller,
    user: PathKey,
    at: Time | None = None,
    limit: Annotated[int, Query(ge=1, le=10_000)] = 200,
    surface: QueryName | None = None,
) -> Timeline:
    """The latest events strictly before `at` (now), oldest first; empty for a user nobody has seen."""
    moment = at or house.now()
    with house.store.read() as session:
        return timelines.read(session, user, at=moment, limit=limit, surface=surface).to_wire(moment)


@router.put(
    "/items",
    summary="Put items into the catalogue",
    tags=["items"],
    openapi_extra=bulk_body(ItemBatch, ARROW, "columns key and features (JSON text)"),
)
async def put_items(house: House, caller: Caller, request: Request) -> ItemsAccepted:
    """Replaces the features of items that are there. The catalogue is shared: for every team that owns a
    surface or a foundation. 100,000 items at most."""
    body = await bodies.read(request)

    def put() -> ItemsAccepted:
        with house.registry.read() as session:
            require_contributor(session, caller)
        if body.media == ARROW:
            table = check_items(decode_table(body.data))
        else:
            table = items_to_table(bodies.parse(ItemBatch, body.data).items)
        return house.store.transact(lambda session: items.upsert_arrow(session, table, now=house.now()))

    return await run_in_threadpool(put)


@router.get(
    "/items",
    summary="List the catalogue",
    tags=["items"],
    response_model=Page[Item],
    responses={**arrow_answer("key, features (JSON text)"), **problem_responses(406)},
)
def list_items(
    house: House,
    caller: Caller,
    request: Request,
    cursor: Annotated[str | None, Query(max_length=256, pattern=r"^[^\x00]+$")] = None,
    limit: Annotated[int, Query(ge=1, le=10_000)] = 1000,
) -> Response:
    """By key. As JSON a page after `cursor`; as an Arrow stream everything after `cursor`."""
    if negotiate(request.headers.get("accept"), (JSON, ARROW)).name == ARROW:
        return arrow_streams.respond(arrow_streams.encode(ITEM_SCHEMA, _item_batches(house, cursor)))
    with house.store.read() as session:
        found = items.page(session, after=cursor, limit=limit + 1)
    following = found[limit - 1].key if len(found) > limit else None
    answer = Page[Item](items=found[:limit], next=following)
    return Response(answer.model_dump_json(), media_type=JSON)


def _item_batches(house: House, after: str | None) -> Iterator[pa.RecordBatch]:
    with house.store.read() as session:
        for chunk in items.scan(session, after=after):
            yield from items_to_table(chunk).to_batches()


@router.get("/items/{key:path}", summary="Show an item", tags=["items"])
def get_item(house: House, caller: Caller, key: PathKey) -> Item:
    with house.store.read() as session:
        return items.get(session, key)


@router.post(
    "/outcomes",
    summary="Record outcomes of impressions",
    tags=["training"],
    openapi_extra=bulk_body(OutcomeBatch, ARROW, _OUTCOME_COLUMNS),
    responses=problem_responses(404, 409),
)
async def record_outcomes(
    house: House, caller: Caller, request: Request, surface: QueryName | None = None
) -> OutcomesAccepted:
    """The same outcome again is counted as a duplicate; another label for it is a conflict, and nothing
    of the batch is written. For the owner of the surface."""
    body = await bodies.read(request)

    def record() -> OutcomesAccepted:
        where, rows = _outcomes_of(body, surface)
        with house.registry.read() as session:
            require_surfaces(session, caller, [where])
        return house.store.transact(lambda session: outcomes.record(session, where, rows, now=house.now()))

    return await run_in_threadpool(record)


def _outcomes_of(body: bodies.Body, surface: str | None) -> tuple[str, OutcomeColumns]:
    if body.media == ARROW:
        if surface is None:
            raise InvalidRequest("An Arrow body does not say which surface: add ?surface= to the URL.")
        return surface, OutcomeColumns.from_arrow(decode_outcomes(body.data))
    document = bodies.parse(OutcomeBatch, body.data)
    if surface not in (None, document.surface):
        raise InvalidRequest(f"The URL says surface {surface!r} and the body {document.surface!r}.")
    return document.surface, OutcomeColumns.from_wire(document.outcomes)
