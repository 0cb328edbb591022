"""Training sets, the objects they are made of, and the impression log they are made from."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

import pyarrow as pa
from fastapi import APIRouter, Path, Query
from fastapi.responses import StreamingResponse

from bedplate.errors import NotFound
from bedplate.training_data import why_empty
from bedplate.wire.common import Page
from bedplate.wire.store import LogSealed, TrainingSet, TrainingSetCreate, TrainingSetFile
from bedplate_registry import surfaces
from bedplate_services import arrow_streams, object_files
from bedplate_services.auth import Caller
from bedplate_services.logging import get_logger
from bedplate_services.openapi import arrow_answer, problem_responses
from bedplate_services.ownership import require_surfaces
from bedplate_services.routes.common import House, page, signed_url, stored_path
from bedplate_services.routes.uploads import BINARY_ANSWER, RangeHeader
from bedplate_services.version_spaces import resolve
from bedplate_store import training_sets
from bedplate_store.impressions import ImpressionLog

router = APIRouter(prefix="/v1", tags=["training"])
_log = get_logger(__name__)
TrainingSetId = Annotated[str, Path(alias="id", pattern=r"^[A-Za-z0-9_-]{1,64}$")]


@router.post(
    "/training-sets",
    status_code=201,
    summary="Make a training set",
    responses=problem_responses(404, 409),
)
def create_training_set(house: House, caller: Caller, document: TrainingSetCreate) -> TrainingSet:
    """A job joins impressions, logged TAE and outcomes, point in time; watch it at /v1/jobs/{job}.
    Aliases among `versions` are resolved now. For the owner of the surface."""
    with house.registry.read() as session:
        require_surfaces(session, caller, [document.surface])
        team = surfaces.owner(session, document.surface)
    pinned = [resolve(house, reference).reference for reference in document.versions]
    # What is not sealed is in no training set; what was answered before this request should be in this one.
    ImpressionLog(house.settings.spool_dir, house.objects, house.store).seal(house.now())
    definition, origin = document.model_copy(update={"versions": pinned}), house.origin()
    made = house.store.transact(
        lambda session: training_sets.create(session, definition, team=team, now=house.now(), origin=origin)
    )
    _log.info("job", job=made.job, kind="training_set", subject=made.id)
    house.dispatcher.drain(house.now())
    return made


@router.post("/impressions/seal", summary="Seal the impression log")
def seal_log(house: House, caller: Caller) -> LogSealed:
    """What this machine has served becomes immutable segments, at once instead of within seconds.
    Needs an admin's token."""
    caller.require_admin()
    report = ImpressionLog(house.settings.spool_dir, house.objects, house.store).seal(house.now())
    return LogSealed(segments=report.segments, requests=report.requests, rows=report.rows)


@router.get("/training-sets", summary="List training sets")
def list_training_sets(
    house: House,
    caller: Caller,
    surface: Annotated[str | None, Query(pattern=r"^[a-z][a-z0-9_-]{0,62}$")] = None,
) -> Page[TrainingSet]:
    with house.store.read() as session:
        return page(training_sets.list(session, surface=surface))


@router.get("/training-sets/{id}", summary="Show a training set")
def get_training_set(house: House, caller: Caller, training_set_id: TrainingSetId) -> TrainingSet:
    with house.store.read() as session:
        return training_sets.get(session, training_set_id)


@router.get(
    "/training-sets/{id}/files",
    summary="List the files of a training set",
    responses=problem_responses(409),
)
def list_files(house: House, caller: Caller, training_set_id: TrainingSetId) -> list[TrainingSetFile]:
    """With signed URLs that need no token and last an hour."""
    with house.store.read() as session:
        files = training_sets.files(session, house.objects, training_set_id)
    return [
        TrainingSetFile(
            name=file.name,
            table=file.table,
            rows=file.rows,
            bytes=file.bytes,
            sha256=file.sha256,
            url=signed_url(house, file.object_key),
            path=stored_path(house, file.object_key),
        )
        for file in files
    ]


@router.get(
    "/training-sets/{id}/tables/{table}",
    summary="Stream a table of a training set",
    response_class=StreamingResponse,
    responses={**arrow_answer("the columns of the table"), **problem_responses(409)},
)
def stream_table(
    house: House, caller: Caller, training_set_id: TrainingSetId, table: Literal["rows", "requests"]
) -> StreamingResponse:
    """All files of the table as one Arrow stream, in order."""
    with house.store.read() as session:
        files = training_sets.files(session, house.objects, training_set_id)
        made = training_sets.get(session, training_set_id)
    keys = [file.object_key for file in files if file.table == table]
    if not keys:
        raise NotFound(why_empty(made), training_set=made.id)
    first = _open(house, keys[0])

    def batches() -> Iterator[pa.RecordBatch]:
        yield from _batches(first)
        for key in keys[1:]:
            yield from _batches(_open(house, key))

    return arrow_streams.respond(arrow_streams.encode(first.schema, batches()))


def _open(house: House, key: str) -> pa.ipc.RecordBatchFileReader:
    path = house.objects.local_path(key)
    source = pa.memory_map(str(path)) if path is not None else pa.BufferReader(house.objects.get(key))
    return pa.ipc.open_file(source)


def _batches(reader: pa.ipc.RecordBatchFileReader) -> Iterator[pa.RecordBatch]:
    for index in range(reader.num_record_batches):
        yield reader.get_batch(index)


@router.get(
    "/objects/{key:path}",
    summary="Read an object by a signed URL",
    response_class=StreamingResponse,
    responses={**BINARY_ANSWER, **problem_responses(403)},
)
def get_object(
    house: House,
    key: Annotated[str, Path(max_length=512)],
    expires: int,
    signature: Annotated[str, Query(max_length=128)],
    wanted: RangeHeader = None,
) -> StreamingResponse:
    """Needs no token: the URL itself, as another route gave it, is the permission."""
    house.signer.check(key, expires=expires, signature=signature, now=house.now())
    return object_files.respond(house.objects, key, name=key.rpartition("/")[2], range_header=wanted)
