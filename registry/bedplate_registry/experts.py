"""Experts: the models of surfaces, and which version of each serves."""

from __future__ import annotations

import builtins
from datetime import datetime

from sqlalchemy import func, select

from bedplate.errors import AliasMoved, AlreadyExists, Conflict, NotFound
from bedplate.references import check_name
from bedplate.wire.registry import AliasChange, Expert, ExpertCreate, ExpertVersion, ServingMove
from bedplate_registry import expert_versions
from bedplate_registry.checks import check_text, fetch, insert, try_insert
from bedplate_registry.database import ReadSession, WriteSession
from bedplate_registry.tables import (
    ExpertRow,
    ExpertVersionRow,
    FoundationRow,
    ServingChangeRow,
    ServingRow,
    SurfaceRow,
)


def create(session: WriteSession, document: ExpertCreate, now: datetime) -> Expert:
    """Raises: AlreadyExists (experts and foundations share one name space: ``name@3`` must mean one thing);
    NotFound where the surface does not exist.
    """
    check_name(document.name, "expert")
    check_text(description=document.description)
    fetch(session, SurfaceRow, document.surface, f"surface {document.surface!r}: create it first")
    if session.get(FoundationRow, document.name) is not None:
        raise AlreadyExists(
            f"{document.name!r} is a foundation; choose another name, so that {document.name}@1 is clear.",
            name=document.name,
        )
    row = ExpertRow(
        name=document.name, surface=document.surface, description=document.description, created_at=now
    )
    insert(session, row, f"an expert {document.name!r}", name=document.name)
    return _document(row, None, None)


def get(session: ReadSession, name: str) -> Expert:
    """Raises: NotFound."""
    row = fetch(session, ExpertRow, name, f"expert {name!r}")
    latest = session.scalar(select(func.max(ExpertVersionRow.number)).where(ExpertVersionRow.expert == name))
    serving = session.get(ServingRow, name)
    return _document(row, latest, serving.version if serving is not None else None)


def owner(session: ReadSession, name: str) -> str:
    """The team that owns the expert: its surface's. Raises: NotFound."""
    surface = fetch(session, ExpertRow, name, f"expert {name!r}").surface
    return fetch(session, SurfaceRow, surface, f"surface {surface!r}").team


def list(session: ReadSession, surface: str | None = None) -> builtins.list[Expert]:
    """Every expert (of a surface), by name."""
    query = (
        select(ExpertRow, func.max(ExpertVersionRow.number), func.max(ServingRow.version))
        .outerjoin(ExpertVersionRow, ExpertVersionRow.expert == ExpertRow.name)
        .outerjoin(ServingRow, ServingRow.expert == ExpertRow.name)
        .group_by(ExpertRow.name)
        .order_by(ExpertRow.name)
    )
    if surface is not None:
        fetch(session, SurfaceRow, surface, f"surface {surface!r}")
        query = query.where(ExpertRow.surface == surface)
    return [_document(row, latest, serving) for row, latest, serving in session.execute(query)]


def set_serving(session: WriteSession, expert: str, document: ServingMove, by: str, now: datetime) -> Expert:
    """Let a version answer for its expert, if the one that answers now is the one the caller believes.

    Raises:
        AliasMoved: another version serves than ``expected_version`` says.
        VersionNotReady: the version, or the foundation version it is pinned to, is not ready.
        NotFound: there is no such expert or version.
    """
    check_text(reason=document.reason)
    fetch(session, ExpertRow, expert, f"expert {expert!r}")
    expert_versions.require_servable(session, expert, document.version)
    _swap(session, expert, document, now)
    session.add(
        ServingChangeRow(
            expert=expert,
            from_version=document.expected_version,
            to_version=document.version,
            reason=document.reason,
            moved_by=by,
            moved_at=now,
        )
    )
    session.flush()
    return get(session, expert)


def serving_history(session: ReadSession, expert: str) -> builtins.list[AliasChange]:
    """Every move of the serving version, newest first. Raises: NotFound."""
    fetch(session, ExpertRow, expert, f"expert {expert!r}")
    query = select(ServingChangeRow).where(ServingChangeRow.expert == expert)
    return [
        AliasChange(
            alias="serving",
            from_version=row.from_version,
            to_version=row.to_version,
            reason=row.reason,
            moved_by=row.moved_by,
            moved_at=row.moved_at,
        )
        for row in session.scalars(query.order_by(ServingChangeRow.id.desc()))
    ]


def serving(session: ReadSession, surface: str, expert: str | None = None) -> ExpertVersion:
    """The expert version that answers for a surface; ``expert`` None: the surface's only serving one.

    Raises:
        NotFound: no such surface, or nothing serves there.
        Conflict: several experts serve and none was named.
    """
    fetch(session, SurfaceRow, surface, f"surface {surface!r}")
    query = (
        select(ServingRow.expert, ServingRow.version)
        .join(ExpertRow, ExpertRow.name == ServingRow.expert)
        .where(ExpertRow.surface == surface)
        .order_by(ServingRow.expert)
    )
    found = {row.expert: row.version for row in session.execute(query)}
    if expert is None and len(found) == 1:
        expert = next(iter(found))
    if expert is None and found:
        raise Conflict(
            f"Several experts serve {surface!r}: name one of {', '.join(found)}.", experts=[*found]
        )
    if expert is None or expert not in found:
        who = f"Expert {expert!r} does not serve" if expert is not None else "No expert serves"
        raise NotFound(
            f"{who} surface {surface!r}. Register one (POST /v1/experts), upload and finalise a version "
            "of it, then let it serve (PUT /v1/experts/{expert}/serving)."
        )
    return expert_versions.get(session, expert, found[expert])


def _swap(session: WriteSession, expert: str, document: ServingMove, now: datetime) -> None:
    row = session.get(ServingRow, expert, with_for_update=True, populate_existing=True)
    if row is None and document.expected_version is None:
        if try_insert(session, ServingRow(expert=expert, version=document.version, moved_at=now)):
            return
        row = session.get(
            ServingRow, expert, populate_existing=True
        )  # somebody else's, committed a moment ago
    current = row.version if row is not None else None
    if row is None or current != document.expected_version:
        raise AliasMoved(
            f"Version {current} of expert {expert!r} serves, not {document.expected_version}: look again, "
            f"and if you still mean it send expected_version {current if row is not None else 'null'}.",
            current_version=current,
        )
    row.version, row.moved_at = document.version, now


def _document(row: ExpertRow, latest: int | None, serving_version: int | None) -> Expert:
    return Expert(
        name=row.name,
        surface=row.surface,
        description=row.description,
        created_at=row.created_at,
        latest_version=latest,
        serving_version=serving_version,
    )
