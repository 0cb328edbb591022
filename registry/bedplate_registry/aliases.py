"""Aliases: movable names of versions. Every move is a compare-and-swap and stays in the history."""

from __future__ import annotations

import builtins
from datetime import datetime

from sqlalchemy import select

from bedplate.errors import AliasMoved
from bedplate.references import check_name
from bedplate.wire.registry import Alias, AliasChange, AliasMove
from bedplate_registry import versions
from bedplate_registry.checks import check_text, fetch, try_insert
from bedplate_registry.database import ReadSession, WriteSession
from bedplate_registry.tables import AliasChangeRow, AliasRow, FoundationRow


def move(
    session: WriteSession, foundation: str, alias: str, document: AliasMove, moved_by: str, now: datetime
) -> Alias:
    """Point ``foundation@alias`` at a version if it still points where the caller believes.

    Raises:
        AliasMoved: it points elsewhere, or exists though the caller believes it does not.
        VersionNotReady: the version is a draft or retired.
        NotFound: there is no such foundation or version.
    """
    check_name(alias, "alias")
    check_text(reason=document.reason)
    fetch(session, FoundationRow, foundation, f"foundation {foundation!r}")
    versions.require_ready(session, foundation, document.version)
    row = _swap(session, foundation, alias, document, now)
    session.add(
        AliasChangeRow(
            foundation=foundation,
            alias=alias,
            from_version=document.expected_version,
            to_version=document.version,
            reason=document.reason,
            moved_by=moved_by,
            moved_at=now,
        )
    )
    session.flush()
    return _document(row)


def get(session: ReadSession, foundation: str, alias: str) -> Alias:
    """Raises: NotFound."""
    return _document(fetch(session, AliasRow, (foundation, alias), f"alias {foundation}@{alias}"))


def list(session: ReadSession, foundation: str) -> builtins.list[Alias]:
    """Every alias of the foundation, by name. Raises: NotFound where there is no such foundation."""
    fetch(session, FoundationRow, foundation, f"foundation {foundation!r}")
    query = select(AliasRow).where(AliasRow.foundation == foundation).order_by(AliasRow.alias)
    return [_document(row) for row in session.scalars(query)]


def list_all(session: ReadSession) -> builtins.list[Alias]:
    """Every alias of every foundation, by name."""
    query = select(AliasRow).order_by(AliasRow.foundation, AliasRow.alias)
    return [_document(row) for row in session.scalars(query)]


def history(session: ReadSession, foundation: str, alias: str) -> builtins.list[AliasChange]:
    """Every move, newest first. Raises: NotFound where there is no such alias."""
    get(session, foundation, alias)
    query = (
        select(AliasChangeRow)
        .where(AliasChangeRow.foundation == foundation, AliasChangeRow.alias == alias)
        .order_by(AliasChangeRow.id.desc())
    )
    return [
        AliasChange(
            alias=row.alias,
            from_version=row.from_version,
            to_version=row.to_version,
            reason=row.reason,
            moved_by=row.moved_by,
            moved_at=row.moved_at,
        )
        for row in session.scalars(query)
    ]


def _swap(session: WriteSession, foundation: str, alias: str, document: AliasMove, now: datetime) -> AliasRow:
    key = (foundation, alias)
    row = session.get(AliasRow, key, with_for_update=True, populate_existing=True)
    if row is None and document.expected_version is None:
        row = AliasRow(foundation=foundation, alias=alias, version=document.version, moved_at=now)
        if try_insert(session, row):
            return row
        row = session.get(AliasRow, key, populate_existing=True)  # somebody else's, committed a moment ago
    current = row.version if row is not None else None
    if row is None or current != document.expected_version:
        now_at = f"points at version {current}" if row is not None else "does not exist"
        raise AliasMoved(
            f"{foundation}@{alias} {now_at}, not at version {document.expected_version}: look again, and "
            f"if you still mean it send expected_version {current if row is not None else 'null'}.",
            current_version=current,
        )
    row.version, row.moved_at = document.version, now
    return row


def _document(row: AliasRow) -> Alias:
    return Alias(foundation=row.foundation, alias=row.alias, version=row.version, moved_at=row.moved_at)
