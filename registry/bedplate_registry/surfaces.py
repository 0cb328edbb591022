"""Surfaces: where recommendations are shown, each owned by one team."""

from __future__ import annotations

import builtins
from datetime import datetime

from sqlalchemy import select

from bedplate.references import check_name
from bedplate.wire.registry import Surface, SurfaceCreate
from bedplate_registry.checks import check_text, fetch, insert
from bedplate_registry.database import ReadSession, WriteSession
from bedplate_registry.tables import SurfaceRow, TeamRow


def create(session: WriteSession, document: SurfaceCreate, now: datetime) -> Surface:
    """Raises: AlreadyExists; NotFound where the team does not exist."""
    check_name(document.name, "surface")
    check_text(description=document.description)
    fetch(session, TeamRow, document.team, f"team {document.team!r}: create it first")
    row = SurfaceRow(name=document.name, team=document.team, description=document.description, created_at=now)
    insert(session, row, f"a surface {document.name!r}", name=document.name)
    return _document(row)


def get(session: ReadSession, name: str) -> Surface:
    """Raises: NotFound."""
    return _document(fetch(session, SurfaceRow, name, f"surface {name!r}"))


def owner(session: ReadSession, name: str) -> str:
    """The team that owns the surface. Raises: NotFound."""
    return fetch(session, SurfaceRow, name, f"surface {name!r}").team


def list(session: ReadSession) -> builtins.list[Surface]:
    """Every surface, by name."""
    return [_document(row) for row in session.scalars(select(SurfaceRow).order_by(SurfaceRow.name))]


def _document(row: SurfaceRow) -> Surface:
    return Surface(name=row.name, team=row.team, description=row.description, created_at=row.created_at)
