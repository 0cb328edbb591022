"""Which store node serves which shard."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from bedplate.wire.common import Page
from bedplate.wire.shards import ShardAssign, ShardAssignment, ShardMove
from bedplate_services.auth import Caller
from bedplate_services.openapi import problem_responses
from bedplate_services.routes.common import House, page
from bedplate_store import shard_assignments

router = APIRouter(prefix="/v1/shards", tags=["shards"])


@router.get("", summary="List which store node serves which shard")
def list_shards(house: House, caller: Caller) -> Page[ShardAssignment]:
    """By space and shard. A shard without an assignment, of a space that has others, is served by nobody; a
    space without any is served by every API process whole.
    """
    with house.store.read() as session:
        return page(shard_assignments.list_assignments(session))


@router.get("/moves", summary="List the last moves of shards")
def list_shard_moves(
    house: House, caller: Caller, limit: Annotated[int, Query(ge=1, le=1000)] = 100
) -> Page[ShardMove]:
    """Newest first."""
    with house.store.read() as session:
        return page(shard_assignments.list_moves(session, limit))


@router.post("/assign", summary="Give shards to a store node", responses=problem_responses(404, 412))
def assign_shards(house: House, caller: Caller, document: ShardAssign) -> Page[ShardAssignment]:
    """All of them or none; 412 if one is not where `expected_node` says. The old node answers until the new
    one has them open. Needs an admin's token.
    """
    caller.require_admin()
    assigned = house.store.transact(
        lambda session: shard_assignments.assign(session, document, moved_by=caller.team, now=house.now())
    )
    return page(assigned)
