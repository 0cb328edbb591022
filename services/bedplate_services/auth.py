"""Bearer tokens: who sends the request, and what that team may change."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Annotated

import structlog
from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from starlette.concurrency import run_in_threadpool
from starlette.types import ASGIApp, Receive, Scope, Send

from bedplate.databases import DATABASE_AWAY
from bedplate.errors import Unauthenticated
from bedplate_registry.principals import Principal
from bedplate_services.edge import header

_CAPACITY = 4096
_CACHE = "tokens"
PRINCIPAL = "bedplate_principal"
_OPEN = frozenset({"/v1/endpoints"})
_SIGNED = "/v1/objects/"  # such a URL carries its own permission
SECURITY_SCHEME = HTTPBearer(
    auto_error=False,
    scheme_name="token",
    description="A team's token, as `bedplate up` or `POST /v1/teams/{team}/tokens` issued it.",
)


@dataclass(frozen=True)
class _Known:
    """``until``: good without asking; ``told_at``: when the database last said so."""

    principal: Principal
    until: float
    told_at: float


class Authenticator:
    """Answers who a secret belongs to, remembering the good answers for a moment.

    The memory saves the hot path a database query per request; a revoked token works ``ttl_seconds``
    longer at most, or, while the database is away, ``outage_seconds``. Secrets are kept as hashes only.

    Args:
        on_use: told ``("tokens", "hit" or "miss", how many)``. Hits come along with the next miss, so that
            they cost the hot path an addition.
    """

    def __init__(
        self,
        authenticate: Callable[[str], Principal],
        *,
        ttl_seconds: float,
        outage_seconds: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
        on_use: Callable[[str, str, int], None] = lambda _cache, _result, _count: None,
    ) -> None:
        self._authenticate = authenticate
        self._on_use = on_use
        self._hits = 0
        self._ttl_seconds = ttl_seconds
        self._outage_seconds = outage_seconds
        self._clock = clock
        self._known: dict[bytes, _Known] = {}

    def remembered(self, secret: str) -> Principal | None:
        """The principal if it is known without asking the database."""
        known = self._known.get(digest(secret))
        if known is None or known.until <= self._clock():
            return None
        self._hits += 1
        return known.principal

    def knows(self, secret_digest: bytes) -> bool:
        """Whether the secret with this digest is remembered as a good one."""
        known = self._known.get(secret_digest)
        if known is None or known.until <= self._clock():
            return False
        self._hits += 1
        return True

    def ask(self, secret: str) -> Principal:
        """Ask the database; while it is away, what it last said holds. Raises Unauthenticated for a secret
        that is unknown or revoked.
        """
        asked_at, known = self._clock(), self._known.get(digest(secret))
        try:
            principal = self._authenticate(secret)
        except DATABASE_AWAY:
            if known is None or asked_at - known.told_at >= self._outage_seconds:
                raise
            self._known[digest(secret)] = replace(known, until=self._clock() + self._ttl_seconds)
            return known.principal
        except Unauthenticated:
            self._known.pop(digest(secret), None)
            raise
        if len(self._known) >= _CAPACITY:
            self._forget_old()
        self._known[digest(secret)] = _Known(principal, self._clock() + self._ttl_seconds, asked_at)
        return principal

    def forget(self) -> None:
        """Ask the database again from now on; called after this process revoked a token."""
        self._known.clear()

    async def __call__(self, secret: str) -> Principal:
        known = self.remembered(secret)
        if known is not None:
            return known
        hits, self._hits = self._hits, 0
        self._on_use(_CACHE, "hit", hits)
        self._on_use(_CACHE, "miss", 1)
        return await run_in_threadpool(self.ask, secret)

    def _forget_old(self) -> None:
        now = self._clock()
        self._known = {key: known for key, known in self._known.items() if known.until > now}
        if len(self._known) >= _CAPACITY:
            self._known.clear()


def digest(secret: str) -> bytes:
    """How a secret is remembered."""
    return hashlib.sha256(secret.encode()).digest()


def bearer(scope: Scope) -> str:
    """The secret of the ``Authorization`` header. Raises Unauthenticated where there is none."""
    scheme, _, secret = header(scope, b"authorization").decode("latin-1").partition(" ")
    if scheme.lower() != "bearer" or not secret.strip():
        raise Unauthenticated("Send a token: Authorization: Bearer <token>. An administrator issues them.")
    return secret.strip()


class Gate:
    """Lets only requests with a good token through to ``/v1``, before anything of their body is read."""

    def __init__(self, app: ASGIApp, authenticator: Authenticator) -> None:
        self._app = app
        self._authenticator = authenticator

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and _needs_token(scope["path"]):
            principal = scope[PRINCIPAL] = await self._authenticator(bearer(scope))
            structlog.contextvars.bind_contextvars(team=principal.team)
        await self._app(scope, receive, send)


def _needs_token(path: str) -> bool:
    return path.startswith("/v1/") and path not in _OPEN and not path.startswith(_SIGNED)


async def _principal(
    request: Request,
    _: Annotated[HTTPAuthorizationCredentials | None, Depends(SECURITY_SCHEME)],
) -> Principal:
    principal: Principal = request.scope[PRINCIPAL]
    return principal


Caller = Annotated[Principal, Depends(_principal)]
"""Parameter of a route that needs a token: who sent the request."""
