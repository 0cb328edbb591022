"""Evaluations and the transfer ratios they allow."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from bedplate.errors import Forbidden
from bedplate.references import VersionReference
from bedplate.wire.common import Name, Page
from bedplate.wire.registry import Evaluation, EvaluationCreate, TransferRatio
from bedplate_registry import evaluations, experts, foundations, surfaces
from bedplate_registry.database import ReadSession, WriteSession
from bedplate_registry.principals import Principal
from bedplate_services.auth import Caller
from bedplate_services.openapi import problem_responses
from bedplate_services.ownership import is_foundation
from bedplate_services.routes.common import House, page

router = APIRouter(prefix="/v1", tags=["evaluations"])
Reference = Annotated[str, Query(max_length=128, examples=["core@7"])]


@router.post(
    "/evaluations", status_code=201, summary="Record an evaluation", responses=problem_responses(404)
)
def record_evaluation(house: House, caller: Caller, document: EvaluationCreate) -> Evaluation:
    """For the team that owns the subject or the surface it was measured on."""

    def record(session: WriteSession) -> Evaluation:
        _require_interest(session, caller, document)
        return evaluations.record(session, document, caller.team, house.now())

    return house.registry.transact(record)


def _require_interest(session: ReadSession, caller: Principal, document: EvaluationCreate) -> None:
    surface_team = surfaces.owner(session, document.surface)
    subject = VersionReference.parse(document.subject).foundation
    known = foundations if is_foundation(session, subject) else experts
    subject_team = known.owner(session, subject)
    if not caller.is_admin and caller.team not in (surface_team, subject_team):
        raise Forbidden(
            f"{document.subject} belongs to team {subject_team!r} and {document.surface!r} to team "
            f"{surface_team!r}; ask one of them to record it.",
            team=caller.team,
        )


@router.get("/evaluations", summary="List evaluations")
def list_evaluations(
    house: House,
    caller: Caller,
    subject: Reference | None = None,
    surface: Name | None = None,
    task: Annotated[str | None, Query(max_length=63)] = None,
) -> Page[Evaluation]:
    """Oldest first, of one subject, surface or task if given."""
    with house.registry.read() as session:
        return page(evaluations.list(session, subject=subject, surface=surface, task=task))


@router.get(
    "/transfer-ratio",
    summary="Tell what a better foundation is worth to a surface's experts",
    responses=problem_responses(404),
)
def transfer_ratio(
    house: House,
    caller: Caller,
    surface: Name,
    from_version: Annotated[str, Query(alias="from", max_length=128, examples=["core@1"])],
    to_version: Annotated[str, Query(alias="to", max_length=128, examples=["core@2"])],
    task: Annotated[str, Query(max_length=63)] = "label",
) -> Page[TransferRatio]:
    """(NE of the expert on `from` - on `to`) / (NE of `from` - of `to`), for each expert measured on both."""
    with house.registry.read() as session:
        return page(evaluations.transfer_between(session, surface, from_version, to_version, task))
