"""Jobs: what the workers are doing and how far they are."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query

from bedplate.wire.common import Page
from bedplate.wire.store import Job, JobState
from bedplate_services.auth import Caller
from bedplate_services.logging import get_logger
from bedplate_services.openapi import problem_responses
from bedplate_services.routes.common import House, page
from bedplate_store import jobs
from bedplate_store.database import WriteSession

router = APIRouter(prefix="/v1/jobs", tags=["jobs"])
_log = get_logger(__name__)
JobId = Annotated[str, Path(alias="id", pattern=r"^[A-Za-z0-9_-]{1,64}$")]


@router.get("", summary="List jobs")
def list_jobs(
    house: House,
    caller: Caller,
    state: JobState | None = None,
    kind: Annotated[str | None, Query(pattern=r"^[a-z_]{1,64}$")] = None,
    subject: Annotated[str | None, Query(pattern=r"^[^\x00]{1,256}$")] = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> Page[Job]:
    """Newest first, of one state, kind or subject if given."""
    with house.store.read() as session:
        return page(jobs.list(session, state=state, kind=kind, subject=subject, limit=limit))


@router.get("/{id}", summary="Show a job and its progress")
def get_job(house: House, caller: Caller, job_id: JobId) -> Job:
    with house.store.read() as session:
        return jobs.get(session, job_id)


@router.post("/{id}/cancel", summary="Cancel a job", responses=problem_responses(409))
def cancel_job(house: House, caller: Caller, job_id: JobId) -> Job:
    """A job that has ended stays as it is. For the team that started it."""

    def cancel(session: WriteSession) -> Job:
        caller.require_owner(jobs.get(session, job_id).team)
        return jobs.cancel(session, job_id, house.now())

    cancelled = house.store.transact(cancel)
    _log.info("cancelled a job", kind=cancelled.kind, subject=cancelled.subject, state=cancelled.state)
    return cancelled
