"""Foundations and their aliases."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.concurrency import run_in_threadpool

from bedplate.wire.common import Page
from bedplate.wire.registry import Alias, AliasChange, AliasMove, Foundation, FoundationCreate
from bedplate_registry import aliases, foundations
from bedplate_services import alias_moves
from bedplate_services.auth import Caller
from bedplate_services.logging import get_logger
from bedplate_services.openapi import problem_responses
from bedplate_services.routes.common import House, PathName, page

router = APIRouter(prefix="/v1/foundations", tags=["foundations"])
_log = get_logger(__name__)
_ALIAS = "/{foundation}/aliases/{alias}"


@router.post("", status_code=201, summary="Create a foundation", responses=problem_responses(404, 409))
def create_foundation(house: House, caller: Caller, document: FoundationCreate) -> Foundation:
    """A family of foundation models; for the team that is to own it, or an admin."""
    caller.require_owner(document.team)
    return house.registry.transact(lambda session: foundations.create(session, document, house.now()))


@router.get("", summary="List the foundations")
def list_foundations(house: House, caller: Caller) -> Page[Foundation]:
    with house.registry.read() as session:
        return page(foundations.list(session))


@router.get("/{foundation}", summary="Show a foundation")
def get_foundation(house: House, caller: Caller, foundation: PathName) -> Foundation:
    with house.registry.read() as session:
        return foundations.get(session, foundation)


@router.put(_ALIAS, summary="Move an alias", tags=["aliases"], responses=problem_responses(409, 412))
async def move_alias(
    house: House, caller: Caller, foundation: PathName, alias: PathName, document: AliasMove
) -> Alias:
    """Compare-and-swap: 412 unless the alias points at ``expected_version`` (null: is not set yet).

    Every process that serves the alias's spaces opens those of the new version first; 409
    `readers_not_ready` names those that did not within `wait_for_readers_seconds`, unless `force` is set.
    """
    caller.require_owner(await run_in_threadpool(_owner, house, foundation))
    moved = await alias_moves.move(house, foundation, alias, document, caller.name)
    _log.info("moved an alias", alias=f"{foundation}@{alias}", to=moved.version, reason=document.reason)
    return moved


def _owner(house: House, foundation: str) -> str:
    with house.registry.read() as session:
        return foundations.owner(session, foundation)


@router.get("/{foundation}/aliases", summary="List a foundation's aliases", tags=["aliases"])
def list_aliases(house: House, caller: Caller, foundation: PathName) -> Page[Alias]:
    with house.registry.read() as session:
        return page(aliases.list(session, foundation))


@router.get(_ALIAS, summary="Show where an alias points", tags=["aliases"])
def get_alias(house: House, caller: Caller, foundation: PathName, alias: PathName) -> Alias:
    with house.registry.read() as session:
        return aliases.get(session, foundation, alias)


@router.get(_ALIAS + "/history", summary="List an alias's moves", tags=["aliases"])
def alias_history(house: House, caller: Caller, foundation: PathName, alias: PathName) -> Page[AliasChange]:
    """Every move, with who made it and why."""
    with house.registry.read() as session:
        return page(aliases.history(session, foundation, alias))
