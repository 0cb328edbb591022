"""Experts, their versions, and which version serves."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends
from fastapi.responses import StreamingResponse

from bedplate.wire.common import Name, Page
from bedplate.wire.registry import (
    AliasChange,
    Expert,
    ExpertCreate,
    ExpertVersion,
    ExpertVersionCreate,
    FileName,
    ServingMove,
    UploadStatus,
)
from bedplate_registry import expert_versions, experts, surfaces
from bedplate_registry.database import WriteSession
from bedplate_services import object_files
from bedplate_services.auth import Caller
from bedplate_services.composition import Platform
from bedplate_services.logging import get_logger
from bedplate_services.openapi import problem_responses
from bedplate_services.routes.common import House, PathName, PathNumber, page
from bedplate_services.routes.uploads import BINARY_ANSWER, PART_BODY, PartBody, PathPart, RangeHeader

router = APIRouter(prefix="/v1/experts", tags=["experts"])
_log = get_logger(__name__)
_VERSION = "/{expert}/versions/{version}"


def _owned(house: House, caller: Caller, expert: PathName) -> Platform:
    with house.registry.read() as session:
        caller.require_owner(experts.owner(session, expert))
    return house


OwnerHouse = Annotated[Platform, Depends(_owned)]
"""The platform, once it is clear that the caller owns the expert's surface."""


@router.post("", status_code=201, summary="Create an expert", responses=problem_responses(404, 409))
def create_expert(house: House, caller: Caller, document: ExpertCreate) -> Expert:
    """A surface's model; for the team that owns the surface, or an admin."""

    def create(session: WriteSession) -> Expert:
        caller.require_owner(surfaces.owner(session, document.surface))
        return experts.create(session, document, house.now())

    return house.registry.transact(create)


@router.get("", summary="List the experts", responses=problem_responses(404))
def list_experts(house: House, caller: Caller, surface: Name | None = None) -> Page[Expert]:
    """All of them, or those of one surface."""
    with house.registry.read() as session:
        return page(experts.list(session, surface))


@router.get("/{expert}", summary="Show an expert")
def get_expert(house: House, caller: Caller, expert: PathName) -> Expert:
    with house.registry.read() as session:
        return experts.get(session, expert)


@router.post(
    "/{expert}/versions",
    status_code=201,
    summary="Draft an expert's version",
    responses=problem_responses(409),
)
def create_version(house: OwnerHouse, expert: PathName, document: ExpertVersionCreate) -> ExpertVersion:
    """Pinned to one foundation version and space, for ever."""
    return expert_versions.create(house.registry, expert, document, house.now(), house.expert_checkpoints)


@router.get("/{expert}/versions", summary="List an expert's versions")
def list_versions(house: House, caller: Caller, expert: PathName) -> Page[ExpertVersion]:
    with house.registry.read() as session:
        return page(expert_versions.list(session, expert))


@router.get(_VERSION, summary="Show an expert's version")
def get_version(house: House, caller: Caller, expert: PathName, number: PathNumber) -> ExpertVersion:
    with house.registry.read() as session:
        return expert_versions.get(session, expert, number)


@router.put(_VERSION, summary="Amend a draft", responses=problem_responses(409))
def amend_version(
    house: OwnerHouse, expert: PathName, number: PathNumber, document: ExpertVersionCreate
) -> ExpertVersion:
    """Replaces what the draft announces; parts of files that stay the same are kept."""
    return house.registry.transact(
        lambda session: expert_versions.amend_draft(
            session, expert, number, document, house.expert_checkpoints
        )
    )


@router.put(
    _VERSION + "/files/{file}/parts/{part}",
    summary="Upload a part of a file",
    openapi_extra=PART_BODY,
    responses=problem_responses(409, 413),
)
def upload_part(
    house: OwnerHouse, expert: PathName, number: PathNumber, file: FileName, part: PathPart, body: PartBody
) -> UploadStatus:
    """64 MiB at most; parts are numbered from 0, come in any order, and replace an earlier try."""
    return expert_versions.receive_part(house.registry, house.objects, expert, number, file, part, body)


@router.get(_VERSION + "/upload", summary="Show which parts have arrived")
def upload_status(house: House, caller: Caller, expert: PathName, number: PathNumber) -> UploadStatus:
    with house.registry.read() as session:
        return expert_versions.upload_status(session, expert, number)


@router.post(_VERSION + "/finalise", summary="Verify the upload and make the version immutable")
def finalise_version(house: OwnerHouse, expert: PathName, number: PathNumber) -> ExpertVersion:
    """422 names the file whose digest or signature does not match; the draft stays and can be mended."""
    return expert_versions.finalise(
        house.registry,
        house.objects,
        expert,
        number,
        house.now(),
        house.expert_checkpoints,
        house.settings.cache_dir,
    )


@router.post(_VERSION + "/retire", summary="Retire an expert's version", responses=problem_responses(409))
def retire_version(house: OwnerHouse, expert: PathName, number: PathNumber) -> ExpertVersion:
    """409 while it serves."""
    return house.registry.transact(
        lambda session: expert_versions.retire(session, expert, number, house.now())
    )


@router.get(
    _VERSION + "/files/{file}",
    summary="Download a file of an expert's version",
    response_class=StreamingResponse,
    responses={**BINARY_ANSWER, **problem_responses(409)},
)
def download_file(
    house: House,
    caller: Caller,
    expert: PathName,
    number: PathNumber,
    file: FileName,
    wanted: RangeHeader = None,
) -> StreamingResponse:
    with house.registry.read() as session:
        key, manifest = expert_versions.file_object(session, expert, number, file)
    return object_files.respond(
        house.objects, key, name=manifest.name, digest=manifest.sha256, range_header=wanted
    )


@router.put(
    "/{expert}/serving", summary="Let a version of an expert serve", responses=problem_responses(409, 412)
)
def move_serving(house: OwnerHouse, caller: Caller, expert: PathName, document: ServingMove) -> Expert:
    """Compare-and-swap: 412 unless ``expected_version`` (null: none) serves now."""
    serving = house.registry.transact(
        lambda session: experts.set_serving(session, expert, document, caller.name, house.now())
    )
    _log.info("let a version of an expert serve", expert=f"{expert}@{document.version}")
    return serving


@router.get("/{expert}/serving/history", summary="List which versions of an expert served")
def serving_history(house: House, caller: Caller, expert: PathName) -> Page[AliasChange]:
    with house.registry.read() as session:
        return page(experts.serving_history(session, expert))
