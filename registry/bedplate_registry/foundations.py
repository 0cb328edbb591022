"""Foundations: families of foundation models, each owned by one team."""

from __future__ import annotations

import builtins
from datetime import datetime

from sqlalchemy import func, select

from bedplate.errors import AlreadyExists
from bedplate.references import check_name
from bedplate.wire.registry import Foundation, FoundationCreate
from bedplate_registry.checks import check_text, fetch, insert
from bedplate_registry.database import ReadSession, WriteSession
from bedplate_registry.tables import ExpertRow, FoundationRow, TeamRow, VersionRow


def create(session: WriteSession, document: FoundationCreate, now: datetime) -> Foundation:
    """Raises: AlreadyExists (foundations and experts share one name space: ``name@3`` must mean one thing);
    NotFound where the team does not exist.
    """
    check_name(document.name, "foundation")
    check_text(description=document.description)
    fetch(session, TeamRow, document.team, f"team {document.team!r}: create it first")
    if session.get(ExpertRow, document.name) is not None:
        raise AlreadyExists(
            f"{document.name!r} is an expert; choose another name, so that {document.name}@1 is clear.",
            name=document.name,
        )
    row = FoundationRow(
        name=document.name, team=document.team, description=document.description, created_at=now
    )
    insert(session, row, f"a foundation {document.name!r}", name=document.name)
    return _document(row, None)


def get(session: ReadSession, name: str) -> Foundation:
    """Raises: NotFound."""
    row = fetch(session, FoundationRow, name, f"foundation {name!r}")
    latest = session.scalar(select(func.max(VersionRow.number)).where(VersionRow.foundation == name))
    return _document(row, latest)


def owner(session: ReadSession, name: str) -> str:
    """The team that owns the foundation. Raises: NotFound."""
    return fetch(session, FoundationRow, name, f"foundation {name!r}").team


def list(session: ReadSession) -> builtins.list[Foundation]:
    """Every foundation, by name."""
    rows = session.execute(
        select(FoundationRow, func.max(VersionRow.number))
        .outerjoin(VersionRow, VersionRow.foundation == FoundationRow.name)
        .group_by(FoundationRow.name)
        .order_by(FoundationRow.name)
    )
    return [_document(row, latest) for row, latest in rows]


def _document(row: FoundationRow, latest: int | None) -> Foundation:
    return Foundation(
        name=row.name,
        team=row.team,
        description=row.description,
        created_at=row.created_at,
        latest_version=latest,
    )
