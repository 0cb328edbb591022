"""Access tokens: issued once, kept only as hashes, revocable."""

from __future__ import annotations

import builtins
import hashlib
import secrets
from datetime import datetime
from typing import cast

from sqlalchemy import select

from bedplate.errors import InvalidRequest, NotFound, Unauthenticated
from bedplate.wire.registry import Role, TeamCreate, Token, TokenCreate, TokenIssued
from bedplate_registry import teams
from bedplate_registry.checks import check_text, fetch, try_insert
from bedplate_registry.database import ReadSession, WriteSession
from bedplate_registry.principals import Principal
from bedplate_registry.tables import TeamRow, TokenRow

SECRET_PREFIX = "bedplate_"  # secret scanners find leaked tokens by it
ADMIN_TEAM = "platform"
_SECRET_BYTES = 32
_SHORTEST_SECRET = 32


def issue(session: WriteSession, team: str, document: TokenCreate, now: datetime) -> TokenIssued:
    """A new token of ``team``; the answer is the only place where its secret ever appears.

    Raises:
        NotFound: there is no such team.
    """
    return _issue(session, team, document, SECRET_PREFIX + secrets.token_urlsafe(_SECRET_BYTES), now)


def bootstrap_admin(session: WriteSession, now: datetime, secret: str | None = None) -> TokenIssued:
    """The first admin token of an installation, with the team it belongs to (``platform``).

    With a ``secret`` (chosen by whoever installs the platform, 32 characters at least) the call is
    idempotent: the same secret gives the same token. Without, every call issues a further token.

    Raises:
        InvalidRequest: the secret is too short.
        Unauthenticated: the secret belongs to a token that was revoked.
    """
    if session.get(TeamRow, ADMIN_TEAM) is None:
        teams.create(session, TeamCreate(name=ADMIN_TEAM, description="Runs this platform."), now)
    document = TokenCreate(role="admin", description="first administrator")
    if secret is None:
        return issue(session, ADMIN_TEAM, document, now)
    if len(secret) < _SHORTEST_SECRET:
        raise InvalidRequest(f"The admin secret needs {_SHORTEST_SECRET} random characters at least.")
    known = session.scalar(select(TokenRow).where(TokenRow.digest == _digest(secret)))
    if known is None:
        return _issue(session, ADMIN_TEAM, document, secret, now)
    if known.revoked_at is not None:
        raise Unauthenticated("This admin secret was revoked; choose another one.")
    return TokenIssued(**_document(known).model_dump(), secret=secret)


def authenticate(session: ReadSession, secret: str) -> Principal:
    """Who holds this secret.

    Raises:
        Unauthenticated: nobody, or the token was revoked.
    """
    row = session.scalar(select(TokenRow).where(TokenRow.digest == _digest(secret)))
    if row is None:
        raise Unauthenticated("The token is not known here; send Authorization: Bearer with a valid one.")
    if row.revoked_at is not None:
        raise Unauthenticated("The token was revoked; ask your team for a new one.")
    return Principal(row.team, cast(Role, row.role), row.id)


def role(session: ReadSession, team: str, token_id: int) -> Role:
    """What the token lets its holder do; a token's role never changes.

    Raises:
        NotFound: the team has no such token.
    """
    return cast(Role, _row(session, team, token_id).role)


def revoke(session: WriteSession, team: str, token_id: int, now: datetime) -> Token:
    """Make the token useless from now on; revoking twice keeps the first time.

    Raises:
        NotFound: the team has no such token.
    """
    row = _row(session, team, token_id, lock=True)
    if row.revoked_at is None:
        row.revoked_at = now
    session.flush()
    return _document(row)


def list(session: ReadSession, team: str) -> builtins.list[Token]:
    """Every token of the team, oldest first, revoked ones too.

    Raises:
        NotFound: there is no such team.
    """
    fetch(session, TeamRow, team, f"team {team!r}")
    rows = session.scalars(select(TokenRow).where(TokenRow.team == team).order_by(TokenRow.id))
    return [_document(row) for row in rows]


def _issue(
    session: WriteSession, team: str, document: TokenCreate, secret: str, now: datetime
) -> TokenIssued:
    check_text(description=document.description)
    fetch(session, TeamRow, team, f"team {team!r}")
    row = TokenRow(
        team=team,
        role=document.role,
        description=document.description,
        digest=_digest(secret),
        created_at=now,
    )
    if not try_insert(session, row):
        raise InvalidRequest("The secret is in use already; choose another one.")
    return TokenIssued(**_document(row).model_dump(), secret=secret)


def _row(session: ReadSession, team: str, token_id: int, *, lock: bool = False) -> TokenRow:
    row = fetch(session, TokenRow, token_id, f"token {token_id}", lock=lock)
    if row.team != team:
        raise NotFound(f"There is no token {token_id} of team {team!r}.")
    return row


def _digest(secret: str) -> str:
    # The secret has 256 random bits: nobody can search for it, a slow password hash would only cost us time.
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


def _document(row: TokenRow) -> Token:
    return Token(
        id=row.id,
        team=row.team,
        role=cast(Role, row.role),
        description=row.description,
        created_at=row.created_at,
        revoked_at=row.revoked_at,
    )
