"""Bearer tokens: who sends the request, and what that team may change."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from starlette.concurrency import run_in_threadpool
from starlette.types import Scope

from bedplate.errors import Unauthenticated
from bedplate_registry.principals import Principal
from bedplate_services.edge import header

_CAPACITY = 4096
SECURITY_SCHEME = HTTPBearer(
    auto_error=False,
    scheme_name="token",
    description="A team's token, as `bedplate up` or `POST /v1/teams/{team}/tokens` issued it.",
)


@dataclass(frozen=True)
class _Known:
    principal: Principal
    until: float


class Authenticator:
    """Answers who a secret belongs to, remembering the good answers for a moment.

    The memory saves the hot path a database query per request; a revoked token works ``ttl_seconds``
    longer at most. Secrets are kept as hashes only.
    """

    def __init__(
        self,
        authenticate: Callable[[str], Principal],
        *,
        ttl_seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._authenticate = authenticate
        self._ttl_seconds = ttl_seconds
        self._clock = clock
        self._known: dict[bytes, _Known] = {}

    def remembered(self, secret: str) -> Principal | None:
        """The principal if it is known without asking the database."""
        known = self._known.get(_digest(secret))
        return known.principal if known is not None and known.until > self._clock() else None

    def ask(self, secret: str) -> Principal:
        """Ask the database. Raises Unauthenticated for a secret that is unknown or revoked."""
        principal = self._authenticate(secret)
        if len(self._known) >= _CAPACITY:
            self._forget_old()
        self._known[_digest(secret)] = _Known(principal, self._clock() + self._ttl_seconds)
        return principal

    def forget(self) -> None:
        """Ask the database again from now on; called after this process revoked a token."""
        self._known.clear()

    async def __call__(self, secret: str) -> Principal:
        known = self.remembered(secret)
        return known if known is not None else await run_in_threadpool(self.ask, secret)

    def _forget_old(self) -> None:
        now = self._clock()
        self._known = {key: known for key, known in self._known.items() if known.until > now}
        if len(self._known) >= _CAPACITY:
            self._known.clear()


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()


def bearer(scope: Scope) -> str:
    """The secret of the ``Authorization`` header. Raises Unauthenticated where there is none."""
    scheme, _, secret = header(scope, b"authorization").decode("latin-1").partition(" ")
    if scheme.lower() != "bearer" or not secret.strip():
        raise missing_token()
    return secret.strip()


def missing_token() -> Unauthenticated:
    return Unauthenticated("Send a token: Authorization: Bearer <token>. An administrator issues them.")


async def _principal(
    request: Request,
    credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(SECURITY_SCHEME)],
) -> Principal:
    if credentials is None or not credentials.credentials:
        raise missing_token()
    authenticator: Authenticator = request.app.state.platform.authenticator
    return await authenticator(credentials.credentials)


Caller = Annotated[Principal, Depends(_principal)]
"""Parameter of a route that needs a token: who sent the request."""
