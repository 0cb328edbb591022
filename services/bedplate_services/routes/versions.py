"""Versions of foundations: drafted, uploaded in parts, finalised, retired."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Path
from fastapi.responses import StreamingResponse

from bedplate.references import VersionReference
from bedplate.wire.common import Page
from bedplate.wire.registry import FileName, UploadStatus, Version, VersionCreate
from bedplate_registry import foundations, versions
from bedplate_services import object_files
from bedplate_services.auth import Caller
from bedplate_services.composition import Platform
from bedplate_services.logging import get_logger
from bedplate_services.openapi import problem_responses
from bedplate_services.routes.common import House, PathName, PathNumber, page
from bedplate_services.routes.uploads import BINARY_ANSWER, PART_BODY, PartBody, PathPart, RangeHeader
from bedplate_services.version_spaces import ensure_spaces

router = APIRouter(prefix="/v1/foundations/{foundation}/versions", tags=["versions"])
_log = get_logger(__name__)
Selector = Annotated[
    str,
    Path(alias="version", pattern=r"^([0-9]{1,9}|[a-z][a-z0-9_-]{0,62})$", examples=["7", "production"]),
]


def _owned(house: House, caller: Caller, foundation: PathName) -> Platform:
    with house.registry.read() as session:
        caller.require_owner(foundations.owner(session, foundation))
    return house


OwnerHouse = Annotated[Platform, Depends(_owned)]
"""The platform, once it is clear that the caller owns the foundation."""


def _resolved(house: House, caller: Caller, foundation: PathName, selector: Selector) -> Version:
    with house.registry.read() as session:
        return versions.resolve(session, VersionReference(foundation, selector))


Resolved = Annotated[Version, Depends(_resolved)]
"""The version that a number or alias in the path means."""


@router.post("", status_code=201, summary="Draft a version", responses=problem_responses(409))
def create_version(house: OwnerHouse, foundation: PathName, document: VersionCreate) -> Version:
    """Announces signature and files; upload every file's parts, then finalise."""
    return versions.create(house.registry, foundation, document, house.now(), house.foundation_checkpoints)


@router.get("", summary="List a foundation's versions")
def list_versions(house: House, caller: Caller, foundation: PathName) -> Page[Version]:
    with house.registry.read() as session:
        return page(versions.list(session, foundation))


@router.get("/{version}", summary="Show a version by number or alias")
def get_version(version: Resolved) -> Version:
    return version


@router.put("/{version}", summary="Amend a draft", responses=problem_responses(409))
def amend_version(
    house: OwnerHouse, foundation: PathName, number: PathNumber, document: VersionCreate
) -> Version:
    """Replaces what the draft announces; parts of files that stay the same are kept."""
    return house.registry.transact(
        lambda session: versions.amend_draft(
            session, foundation, number, document, house.foundation_checkpoints
        )
    )


@router.put(
    "/{version}/files/{file}/parts/{part}",
    summary="Upload a part of a file",
    openapi_extra=PART_BODY,
    responses=problem_responses(409, 413),
)
def upload_part(
    house: OwnerHouse,
    foundation: PathName,
    number: PathNumber,
    file: FileName,
    part: PathPart,
    body: PartBody,
) -> UploadStatus:
    """64 MiB at most; parts are numbered from 0, come in any order, and replace an earlier try."""
    return versions.receive_part(house.registry, house.objects, foundation, number, file, part, body)


@router.get("/{version}/upload", summary="Show which parts have arrived")
def upload_status(house: House, version: Resolved) -> UploadStatus:
    with house.registry.read() as session:
        return versions.upload_status(session, version.foundation, version.version)


@router.post("/{version}/finalise", summary="Verify the upload and make the version immutable")
def finalise_version(house: OwnerHouse, foundation: PathName, number: PathNumber) -> Version:
    """422 names the file whose digest or signature does not match; the draft stays and can be mended."""
    version = versions.finalise(
        house.registry,
        house.objects,
        foundation,
        number,
        house.now(),
        house.foundation_checkpoints,
        house.settings.cache_dir,
    )
    ensure_spaces(house, version)
    _log.info("finalised a version", digest=version.digest)
    return version


@router.post("/{version}/retire", summary="Retire a version", responses=problem_responses(409))
def retire_version(house: OwnerHouse, version: Resolved) -> Version:
    """409 while an alias points at it or a serving expert is pinned to it."""
    retired = house.registry.transact(
        lambda session: versions.retire(session, version.foundation, version.version, house.now())
    )
    house.directory.forget()
    _log.info("retired a version", version=retired.reference)
    return retired


@router.get(
    "/{version}/files/{file}",
    summary="Download a file of a version",
    response_class=StreamingResponse,
    responses={**BINARY_ANSWER, **problem_responses(409)},
)
def download_file(
    house: House, version: Resolved, file: FileName, wanted: RangeHeader = None
) -> StreamingResponse:
    with house.registry.read() as session:
        key, manifest = versions.file_object(session, version.foundation, version.version, file)
    return object_files.respond(
        house.objects, key, name=manifest.name, digest=manifest.sha256, range_header=wanted
    )
