"""The clients: ``Client`` for synchronous code, ``AsyncClient`` with the same surface for asyncio."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from datetime import datetime
from importlib.metadata import version as package_version
from pathlib import Path
from typing import Any, Generic, Self

import httpx

from bedplate.client.direct import DirectConnections
from bedplate.client.effects import Steps
from bedplate.client.jobs import Jobs
from bedplate.client.lookups import Lookup, Search
from bedplate.client.records import Events, Items, Outcomes, Timelines
from bedplate.client.registry import (
    Aliases,
    Evaluations,
    Foundations,
    Surfaces,
    Teams,
    Tokens,
    transfer_ratio,
)
from bedplate.client.requests import get, path
from bedplate.client.serving import Tae, endpoints, rank, rank_request
from bedplate.client.shards import Shards
from bedplate.client.spaces import Spaces
from bedplate.client.steps import AsyncRunner, Namespace, RunnerT, SyncRunner, operation
from bedplate.client.training_sets import Impressions, TrainingSets
from bedplate.client.versions import Experts, Versions
from bedplate.connection import Connection, resolve_connection
from bedplate.wire.registry import TransferRatio, WhoAmI
from bedplate.wire.serving import Endpoints, RankAnswer, RankRequest

__all__ = ["AsyncClient", "Client", "Lookup", "Search"]

TIMEOUT_SECONDS = 60.0
CONNECT_TIMEOUT_SECONDS = 5.0


class _Surface(Namespace[RunnerT], Generic[RunnerT]):
    """Everything both clients offer."""

    def __init__(self, runner: RunnerT, connection: Connection) -> None:
        super().__init__(runner)
        self.url = connection.url
        self.teams = Teams(runner)
        self.tokens = Tokens(runner)
        self.surfaces = Surfaces(runner)
        self.foundations = Foundations(runner)
        self.versions = Versions(runner)
        self.aliases = Aliases(runner)
        self.experts = Experts(runner)
        self.evaluations = Evaluations(runner)
        self.spaces = Spaces(runner)
        self.shards = Shards(runner)
        self.events = Events(runner)
        self.items = Items(runner)
        self.timelines = Timelines(runner)
        self.outcomes = Outcomes(runner)
        self.impressions = Impressions(runner)
        self.training_sets = TrainingSets(runner)
        self.jobs = Jobs(runner)
        self.tae = Tae(runner)

    @operation
    def whoami(self) -> Steps[WhoAmI]:
        """The team and role of the token. Raises Unauthenticated."""
        return get(path("whoami"), WhoAmI)

    @operation
    def endpoints(self) -> Steps[Endpoints]:
        """Where the parts of the platform answer; needs no token."""
        return endpoints()

    @operation
    def transfer_ratio(
        self, surface: str, from_version: str, to_version: str, task: str = "label"
    ) -> Steps[list[TransferRatio]]:
        """How much of a foundation's gain from one version to another arrives in each expert of a surface."""
        return transfer_ratio(surface, from_version, to_version, task)

    @operation
    def rank(
        self,
        surface: str,
        user: str | RankRequest,
        candidates: Sequence[str] | None = None,
        *,
        at: datetime | None = None,
        expert: str | None = None,
        request_id: str | None = None,
        log: bool = True,
    ) -> Steps[RankAnswer]:
        """Scores of the candidates by the surface's expert, with the versions that made them.

        Args:
            user: the user, or the whole request as a document.
            expert: None: the surface's only serving one.
            log: write the impressions, so that outcomes can refer to them.

        Raises:
            NotFound: no expert serves the surface.
        """
        members = {"at": at, "expert": expert, "request_id": request_id, "log": log}
        return rank(self.runner, surface, rank_request(user, candidates, members))


def _options(connection: Connection, timeout_seconds: float) -> dict[str, Any]:
    headers = {"user-agent": f"bedplate/{package_version('bedplate')}"}
    if connection.token:
        headers["authorization"] = f"Bearer {connection.token}"
    return {
        "base_url": connection.url,
        "headers": headers,
        "timeout": httpx.Timeout(timeout_seconds, connect=CONNECT_TIMEOUT_SECONDS),
    }


def _connection(url: str | None, token: str | None, environment: Mapping[str, str] | None) -> Connection:
    known = os.environ if environment is None else environment
    return resolve_connection(url, token, environment=known, home=Path.home())


class Client(_Surface[SyncRunner]):
    """A platform, for synchronous code; safe to share between threads.

    Args:
        url: of the platform's API; None: BEDPLATE_URL, else what ``bedplate up`` wrote to ``client.json``.
        token: None: BEDPLATE_TOKEN, else the one in ``client.json`` if it belongs to the URL.
        transport: instead of the network, e.g. ``httpx.MockTransport``.
        sleep: waits between retries and polls.

    Every operation raises the classes of ``bedplate.errors``; Unavailable where nobody answers.
    """

    def __init__(
        self,
        url: str | None = None,
        token: str | None = None,
        *,
        timeout_seconds: float = TIMEOUT_SECONDS,
        transport: httpx.BaseTransport | None = None,
        sleep: Callable[[float], None] = time.sleep,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        connection = _connection(url, token, environment)
        options = _options(connection, timeout_seconds)
        tls = httpx.create_ssl_context()
        self._http = httpx.Client(transport=transport, verify=tls, **options)
        self._direct: DirectConnections | None = None
        if transport is None:
            self._direct = DirectConnections(connection.url, options["headers"], options["timeout"], tls)
        super().__init__(SyncRunner(self._http, sleep, self._direct), connection)

    def close(self) -> None:
        """Close the connections."""
        self._http.close()
        if self._direct is not None:
            self._direct.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class AsyncClient(_Surface[AsyncRunner]):
    """A platform, for asyncio: every operation of ``Client`` as a coroutine. Same arguments."""

    def __init__(
        self,
        url: str | None = None,
        token: str | None = None,
        *,
        timeout_seconds: float = TIMEOUT_SECONDS,
        transport: httpx.AsyncBaseTransport | None = None,
        sleep: Callable[[float], Coroutine[Any, Any, None]] = asyncio.sleep,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        connection = _connection(url, token, environment)
        self._http = httpx.AsyncClient(transport=transport, **_options(connection, timeout_seconds))
        super().__init__(AsyncRunner(self._http, sleep, asyncio.to_thread), connection)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()
