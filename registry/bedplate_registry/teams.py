"""Teams: who owns foundations, surfaces and, through them, experts."""

from __future__ import annotations

import builtins
from datetime import datetime

from sqlalchemy import select

from bedplate.references import check_name
from bedplate.wire.registry import Team, TeamCreate
from bedplate_registry.checks import check_text, fetch, insert
from bedplate_registry.database import ReadSession, WriteSession
from bedplate_registry.tables import TeamRow


def create(session: WriteSession, document: TeamCreate, now: datetime) -> Team:
    """Raises: AlreadyExists."""
    check_name(document.name, "team")
    check_text(description=document.description)
    row = TeamRow(name=document.name, description=document.description, created_at=now)
    insert(session, row, f"a team {document.name!r}", name=document.name)
    return _document(row)


def get(session: ReadSession, name: str) -> Team:
    """Raises: NotFound."""
    return _document(fetch(session, TeamRow, name, f"team {name!r}"))


def list(session: ReadSession) -> builtins.list[Team]:
    """Every team, by name."""
    return [_document(row) for row in session.scalars(select(TeamRow).order_by(TeamRow.name))]


def _document(row: TeamRow) -> Team:
    return Team(name=row.name, description=row.description, created_at=row.created_at)
