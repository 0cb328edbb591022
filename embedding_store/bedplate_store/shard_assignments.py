"""The assignment of shards to store nodes: explicit, changed by compare-and-swap, every change kept.

A row for one space counts before the row for all of them. Nothing else decides who serves a shard, so that
whoever looks at the table knows, and whoever moves a shard decides when.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError

from bedplate.errors import ShardMoved
from bedplate.references import check_name
from bedplate.wire.shards import ALL_SPACES, ShardAssign, ShardAssignment, ShardMove
from bedplate_store.database import ReadSession, WriteSession
from bedplate_store.spaces import SpaceKey, space_row
from bedplate_store.tables.shards import ShardAssignmentRow, ShardMoveRow

Assignments = Mapping[tuple[str, int], str]
"""Node by (space or ``*``, shard)."""


def assign(
    session: WriteSession, document: ShardAssign, *, moved_by: str, now: datetime
) -> list[ShardAssignment]:
    """Give shards to a node, or to nobody, if all of them are where the caller believes; else none moves.

    Raises:
        ShardMoved: one of them is assigned otherwise.
        NotFound: there is no such space.
        InvalidRequest: the node's name is not allowed, or the space is named by an alias.
    """
    space = document.space
    if space != ALL_SPACES:
        space_row(session, SpaceKey.parse(space))
    if document.node is not None:
        check_name(document.node, "node")
    for shard in document.shards:
        current = _swap(session, space, shard, document, now)
        if current != document.expected_node:
            raise ShardMoved(
                f"shard {shard} of {space} is assigned to {current or 'nobody'}, not to "
                f"{document.expected_node or 'nobody'}: look at the assignments again.",
                space=space,
                shard=shard,
                node=current,
            )
        session.add(
            ShardMoveRow(
                space=space,
                shard=shard,
                from_node=current,
                to_node=document.node,
                moved_by=moved_by,
                moved_at=now,
            )
        )
    session.flush()
    return [one for one in list_assignments(session) if one.space == space and one.shard in document.shards]


def list_assignments(session: ReadSession) -> list[ShardAssignment]:
    """Every assignment, by space and shard."""
    query = select(ShardAssignmentRow).order_by(ShardAssignmentRow.space, ShardAssignmentRow.shard)
    return [
        ShardAssignment(space=row.space, shard=row.shard, node=row.node, assigned_at=row.assigned_at)
        for row in session.scalars(query)
    ]


def list_moves(session: ReadSession, limit: int) -> list[ShardMove]:
    """The last moves, newest first."""
    query = select(ShardMoveRow).order_by(ShardMoveRow.id.desc()).limit(limit)
    return [
        ShardMove(
            space=row.space,
            shard=row.shard,
            from_node=row.from_node,
            to_node=row.to_node,
            moved_by=row.moved_by,
            moved_at=row.moved_at,
        )
        for row in session.scalars(query)
    ]


def read_assignments(session: ReadSession) -> Assignments:
    """All of them."""
    rows = session.execute(
        select(ShardAssignmentRow.space, ShardAssignmentRow.shard, ShardAssignmentRow.node)
    )
    return {(space, shard): node for space, shard, node in rows}


def owners(assignments: Assignments, key: SpaceKey, shards: int) -> list[str | None]:
    """The node of each of a space's ``shards``; None: nobody's."""
    name = str(key)
    return [
        assignments.get((name, number), assignments.get((ALL_SPACES, number))) for number in range(shards)
    ]


def assign_evenly(
    session: WriteSession, names: Sequence[str], shards: int, now: datetime, *, moved_by: str
) -> None:
    """Have ``names`` serve the shards of all spaces in turn, unless just these serve them already."""
    present = read_assignments(session)
    current_of = [present.get((ALL_SPACES, shard)) for shard in range(shards)]
    if set(current_of) == set(names):
        return
    for shard, current in enumerate(current_of):
        if current != names[shard % len(names)]:
            document = ShardAssign(
                space=ALL_SPACES,
                shards=[shard],
                node=names[shard % len(names)],
                expected_node=current,
            )
            assign(session, document, moved_by=moved_by, now=now)


def _swap(session: WriteSession, space: str, shard: int, document: ShardAssign, now: datetime) -> str | None:
    """Who has the shard; if that is whom the caller believes, the new node is put in its place."""
    key = (space, shard)
    row = session.get(ShardAssignmentRow, key, with_for_update=True, populate_existing=True)
    if row is None and document.expected_node is None and document.node is not None:
        row = ShardAssignmentRow(space=space, shard=shard, node=document.node, assigned_at=now)
        try:
            with session.begin_nested():
                session.add(row)
        except IntegrityError:
            row = session.get(ShardAssignmentRow, key, populate_existing=True)  # somebody else was faster
        else:
            return None
    current = None if row is None else row.node
    if row is not None and current == document.expected_node:
        if document.node is None:
            session.delete(row)
        else:
            row.node, row.assigned_at = document.node, now
    return current
