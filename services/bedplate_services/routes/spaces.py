"""Spaces and their snapshots, writes into them, and the jobs that fill them. Reads are in ``hot_path``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query, Request
from starlette.concurrency import run_in_threadpool

from bedplate.codecs import (
    ARROW,
    JSON,
    RAW,
    Keys,
    Vectors,
    as_keys,
    decode_keys_arrow,
    decode_keys_raw,
    decode_upsert_arrow,
)
from bedplate.errors import InvalidRequest
from bedplate.references import VersionReference
from bedplate.wire.common import Name, Page
from bedplate.wire.registry import Version
from bedplate.wire.store import (
    DeleteRequest,
    EmbedAnswer,
    EmbedRequest,
    OpenReader,
    Snapshot,
    Space,
    StorageCost,
    UpsertRequest,
    WriteAnswer,
)
from bedplate_registry import foundations
from bedplate_services import bodies
from bedplate_services.auth import Caller
from bedplate_services.logging import get_logger
from bedplate_services.openapi import bulk_body, problem_responses
from bedplate_services.routes.common import House, PathName, page
from bedplate_services.searches import matrix
from bedplate_services.storage_costs import costs_of
from bedplate_services.version_spaces import resolve, signature_of, space_of
from bedplate_store import embedding_jobs, jobs, reader_processes, snapshots, spaces
from bedplate_store.jobs import PartitionSpec, Stage
from bedplate_store.spaces import SpaceKey

router = APIRouter(prefix="/v1/spaces", tags=["spaces"])
Reference = Annotated[str, Path(max_length=128, examples=["core@7"])]
_SPACE = "/{reference}/{space}"
_log = get_logger(__name__)


def _resolved(house: House, caller: Caller, reference: Reference) -> Version:
    return resolve(house, reference)


Resolved = Annotated[Version, Depends(_resolved)]


def _owned(house: House, caller: Caller, version: Resolved) -> Version:
    with house.registry.read() as session:
        caller.require_owner(foundations.owner(session, version.foundation))
    return version


Owned = Annotated[Version, Depends(_owned)]
"""The version, once it is clear that the caller owns its foundation."""


@router.get("", summary="List the spaces", responses=problem_responses(404))
def list_spaces(
    house: House,
    caller: Caller,
    foundation: Name | None = None,
    version: Annotated[int | None, Query(ge=1, le=2**31 - 1)] = None,
) -> Page[Space]:
    """All of them, or those of one foundation or version."""
    if foundation is not None:
        with house.registry.read() as session:
            foundations.owner(session, foundation)
    with house.store.read() as session:
        return page(spaces.list_spaces(session, foundation, version))


@router.get(_SPACE, summary="Show a space", responses=problem_responses(409))
def get_space(house: House, version: Resolved, space: PathName) -> Space:
    """And the snapshot its readers see."""
    return space_of(house, version, space)


@router.get(_SPACE + "/snapshots", summary="List the snapshots of a space", responses=problem_responses(409))
def list_snapshots(house: House, version: Resolved, space: PathName) -> Page[Snapshot]:
    space_of(house, version, space)
    with house.store.read() as session:
        return page(snapshots.list_snapshots(session, version.foundation, version.version, space))


@router.get(
    _SPACE + "/storage-costs",
    summary="Tell what each way of storing a space costs",
    responses=problem_responses(409),
)
def storage_costs(house: House, version: Resolved, space: PathName) -> Page[StorageCost]:
    """One for each dtype: bytes, error and recall as measured, and the NE of the experts that were evaluated
    on it, minus theirs on float32 or float16. What was not measured is said, and how to measure it.
    """
    space_of(house, version, space)
    return page(costs_of(house, version, space))


@router.get(
    _SPACE + "/readers", summary="List the processes that have a space open", responses=problem_responses(409)
)
def list_readers(house: House, version: Resolved, space: PathName) -> Page[OpenReader]:
    """Each with the snapshot it answers from. Nobody: the first request opens the space, and so does
    publishing it where an older version is being read.
    """
    space_of(house, version, space)
    key = SpaceKey(version.foundation, version.version, space)
    with house.store.read() as session:
        return page(reader_processes.list_readers(session, key, house.now()))


@router.post(
    _SPACE + "/upsert",
    summary="Write vectors",
    openapi_extra=bulk_body(
        UpsertRequest, ARROW, "columns key, vector (FixedSizeList<float16|float32>), attributes"
    ),
    responses=problem_responses(409, 413, 503),
)
async def upsert(house: House, version: Owned, space: PathName, request: Request) -> WriteAnswer:
    """Durable when answered, and visible to every reader within one second, if the machine lets readers run;
    at once to a lookup or search that carries the answer's `token` as `x-bedplate-after`. The answer waits
    for a reader of its process that lags. 100,000 rows at most.
    """
    body = await bodies.read(request)

    def write() -> WriteAnswer:
        space_of(house, version, space)
        keys, vectors, attributes = _rows_of(body)
        return house.writes.upsert(
            foundation=version.foundation,
            version=version.version,
            space=space,
            keys=keys,
            vectors=vectors,
            attributes=attributes,
            now=house.now(),
        )

    return await run_in_threadpool(write)


@router.post(
    _SPACE + "/delete",
    summary="Delete vectors",
    openapi_extra=bulk_body(DeleteRequest, ARROW, "a column key", raw="little-endian int64 keys"),
    responses=problem_responses(409, 413, 503),
)
async def delete(house: House, version: Owned, space: PathName, request: Request) -> WriteAnswer:
    """Unknown keys are no error. Durable when answered. 100,000 keys at most."""
    body = await bodies.read(request, (JSON, ARROW, RAW))

    def write() -> WriteAnswer:
        space_of(house, version, space)
        return house.writes.delete(
            foundation=version.foundation,
            version=version.version,
            space=space,
            keys=_keys_of(body),
            now=house.now(),
        )

    return await run_in_threadpool(write)


def _rows_of(body: bodies.Body) -> tuple[Keys, Vectors, Mapping[str, Any]]:
    if body.media == ARROW:
        return decode_upsert_arrow(body.data)
    document = bodies.parse(UpsertRequest, body.data)
    if len(document.keys) != len(document.vectors):
        raise InvalidRequest(
            f"{len(document.keys)} keys came with {len(document.vectors)} vectors; send one for each."
        )
    return as_keys(document.keys), matrix(document.vectors), document.attributes or {}


def _keys_of(body: bodies.Body) -> Keys:
    if body.media == ARROW:
        return decode_keys_arrow(body.data)
    if body.media == RAW:
        return decode_keys_raw(body.data)
    return as_keys(bodies.parse(DeleteRequest, body.data).keys)


@router.post(
    _SPACE + "/embed",
    status_code=202,
    summary="Embed all items or users of a space",
    responses=problem_responses(409),
)
def embed(house: House, version: Owned, space: PathName, document: EmbedRequest | None = None) -> EmbedAnswer:
    """A job embeds them, builds and measures the index, and publishes the snapshot; watch it at
    /v1/jobs/{id}.
    """
    space_of(house, version, space)
    reference = VersionReference(version.foundation, str(version.version))
    request, signature = document or EmbedRequest(), signature_of(version, space)
    with house.store.read() as session:
        attributes = embedding_jobs.survey_attributes(
            session, version=reference, space=space, signature=signature, request=request
        )
    team = _team(house, version)
    job = house.store.transact(
        lambda session: embedding_jobs.plan_embed(
            session,
            version=reference,
            space=space,
            signature=signature,
            request=request,
            attributes=attributes,
            team=team,
            now=house.now(),
            origin=house.origin(),
        )
    )
    _log.info("job", job=job.id, kind=job.kind, subject=job.subject)
    house.dispatcher.drain(house.now())
    return EmbedAnswer(job=job.id)


@router.post(
    _SPACE + "/compact",
    status_code=202,
    summary="Fold the pending writes of a space into a new snapshot",
    responses=problem_responses(409),
)
def compact(house: House, version: Owned, space: PathName) -> EmbedAnswer:
    current = space_of(house, version, space)
    rows = max(1, current.rows + current.pending_rows)
    params = {"foundation": version.foundation, "version": version.version, "space": space}
    team = _team(house, version)
    job = house.store.transact(
        lambda session: jobs.create(
            session,
            kind="compact",
            subject=current.reference,
            team=team,
            params=params,
            stages=[Stage("compact", [PartitionSpec({}, rows)])],
            now=house.now(),
            origin=house.origin(),
        )
    )
    _log.info("job", job=job.id, kind=job.kind, subject=job.subject)
    house.dispatcher.drain(house.now())
    return EmbedAnswer(job=job.id)


def _team(house: House, version: Version) -> str:
    with house.registry.read() as session:
        return foundations.owner(session, version.foundation)
