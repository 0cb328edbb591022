"""Teams, their tokens, and surfaces."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path

from bedplate.wire.common import Page
from bedplate.wire.registry import (
    Surface,
    SurfaceCreate,
    Team,
    TeamCreate,
    Token,
    TokenCreate,
    TokenIssued,
)
from bedplate_registry import surfaces, teams, tokens
from bedplate_registry.database import WriteSession
from bedplate_services.auth import Caller
from bedplate_services.logging import get_logger
from bedplate_services.openapi import problem_responses
from bedplate_services.routes.common import House, PathName, page

router = APIRouter(prefix="/v1")
_log = get_logger(__name__)


@router.post(
    "/teams", status_code=201, summary="Create a team", tags=["teams"], responses=problem_responses(409)
)
def create_team(house: House, caller: Caller, document: TeamCreate) -> Team:
    """Needs an admin's token."""
    caller.require_admin()
    return house.registry.transact(lambda session: teams.create(session, document, house.now()))


@router.get("/teams", summary="List the teams", tags=["teams"])
def list_teams(house: House, caller: Caller) -> Page[Team]:
    with house.registry.read() as session:
        return page(teams.list(session))


@router.get("/teams/{team}", summary="Show a team", tags=["teams"])
def get_team(house: House, caller: Caller, team: PathName) -> Team:
    with house.registry.read() as session:
        return teams.get(session, team)


@router.post("/teams/{team}/tokens", status_code=201, summary="Issue a token", tags=["teams"])
def issue_token(house: House, caller: Caller, team: PathName, document: TokenCreate) -> TokenIssued:
    """The answer is the only place where the secret ever appears. Admin tokens are issued by admins."""
    caller.require_token(team, document.role)
    issued = house.registry.transact(lambda session: tokens.issue(session, team, document, house.now()))
    _log.info("issued a token", token=issued.id, for_team=team, role=document.role)
    return issued


@router.get("/teams/{team}/tokens", summary="List a team's tokens", tags=["teams"])
def list_tokens(house: House, caller: Caller, team: PathName) -> Page[Token]:
    """Without their secrets; for the team itself and admins."""
    caller.require_owner(team)
    with house.registry.read() as session:
        return page(tokens.list(session, team))


@router.delete("/teams/{team}/tokens/{id}", summary="Revoke a token", tags=["teams"])
def revoke_token(
    house: House,
    caller: Caller,
    team: PathName,
    token_id: Annotated[int, Path(alias="id", ge=1, le=2**31 - 1)],
) -> Token:
    """It stops working within seconds everywhere. Admin tokens are revoked by admins."""
    caller.require_owner(team)

    def revoke(session: WriteSession) -> Token:
        caller.require_token(team, tokens.role(session, team, token_id))
        return tokens.revoke(session, team, token_id, house.now())

    revoked = house.registry.transact(revoke)
    house.authenticator.forget()
    _log.info("revoked a token", token=token_id, of_team=team)
    return revoked


@router.post(
    "/surfaces",
    status_code=201,
    summary="Create a surface",
    tags=["surfaces"],
    responses=problem_responses(404, 409),
)
def create_surface(house: House, caller: Caller, document: SurfaceCreate) -> Surface:
    """For the team that is to own it, or an admin."""
    caller.require_owner(document.team)
    return house.registry.transact(lambda session: surfaces.create(session, document, house.now()))


@router.get("/surfaces", summary="List the surfaces", tags=["surfaces"])
def list_surfaces(house: House, caller: Caller) -> Page[Surface]:
    with house.registry.read() as session:
        return page(surfaces.list(session))


@router.get("/surfaces/{surface}", summary="Show a surface", tags=["surfaces"])
def get_surface(house: House, caller: Caller, surface: PathName) -> Surface:
    with house.registry.read() as session:
        return surfaces.get(session, surface)
