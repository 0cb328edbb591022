"""The API of registry and store: ``create_app(settings)``, or ``python -m bedplate_services.api``."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from fastapi import FastAPI
from starlette.types import Receive, Scope, Send

from bedplate.databases import exit_if_refused
from bedplate.wire.store import DeleteRequest, EventBatch, ItemBatch, OutcomeBatch, UpsertRequest
from bedplate_services import hot_path_documents, problems, serve
from bedplate_services import openapi as openapi_document
from bedplate_services.auth import Gate
from bedplate_services.coalescing import SearchQueue
from bedplate_services.composition import Platform, build_platform
from bedplate_services.coverage import keep_measured
from bedplate_services.edge import BodyLimits, Edge
from bedplate_services.hot_path import HotPath
from bedplate_services.lane.answering import Lane
from bedplate_services.lane.protocol import STATE
from bedplate_services.local_caches import local_caches
from bedplate_services.routes import (
    bulk,
    evaluations,
    experts,
    foundations,
    jobs,
    organisation,
    platform,
    records,
    shards,
    spaces,
    training,
    versions,
)
from bedplate_services.settings import Settings
from bedplate_services.shards.answering import remote_answers

DESCRIPTION = """
The registry of foundation models and the store of their embeddings.

Every route but health, metrics and signed objects needs `Authorization: Bearer <token>`. Errors are
`application/problem+json` with a stable `code`, a `detail` that says what would mend it, and the
`request_id` that finds it in the logs. Bulk vectors travel as Arrow IPC streams or raw little-endian bytes.
"""
BULK_DOCUMENTS = (EventBatch, ItemBatch, OutcomeBatch, UpsertRequest, DeleteRequest)
"""Documents of routes that read JSON or a bulk body, which FastAPI does not see."""
_ROUTERS = (
    platform.router,
    organisation.router,
    foundations.router,
    versions.router,
    experts.router,
    evaluations.router,
    spaces.router,
    shards.router,
    bulk.router,
    records.router,
    training.router,
    jobs.router,
)


class Api:
    """The whole ASGI application: the edge around the hot path beside FastAPI.

    Attributes:
        http: the FastAPI application, for its OpenAPI document.
        platform: what it is built on.
    """

    def __init__(self, house: Platform, limits: BodyLimits | None = None) -> None:
        self.platform = house
        self.http = _fastapi(house)
        queue = SearchQueue()
        remote = remote_answers(house.routing, house.settings, house.tracing)
        hot_path = HotPath(house.directory, remote, house.metrics, queue, self.http)
        bulk_bytes = (limits or BodyLimits()).bulk
        self.lane = Lane(
            house.directory, house.authenticator, house.metrics, queue, remote, bulk_bytes, house.draining
        )
        self._edge = Edge(Gate(hot_path, house.authenticator), house.metrics, limits, house.draining)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        # Requests in the fast lane have no span: where all are to have one, they take the ordinary path.
        if scope["type"] == "lifespan" and "state" in scope and not self.platform.tracing.on:
            scope["state"][STATE] = self.lane
        await self._edge(scope, receive, send)


def create_app(settings: Settings, house: Platform | None = None, limits: BodyLimits | None = None) -> Api:
    """The application on what the settings name (or on a platform built elsewhere). Nothing is migrated."""
    return Api(house or build_platform(settings, service="api"), limits)


def _fastapi(house: Platform) -> FastAPI:
    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        caches = local_caches(house.readers, house.settings.cache_dir, house.now)
        house.start()
        loops = (caches.keep_pruned(), keep_measured(house))
        tasks = [asyncio.create_task(loop) for loop in loops]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task
            house.close()

    app = FastAPI(
        title="Bedplate registry and store",
        version="1",
        description=DESCRIPTION,
        lifespan=lifespan,
        redoc_url=None,
    )
    app.state.platform = house
    problems.install(app)
    for router in _ROUTERS:
        app.include_router(router)
    app.include_router(platform.health_routes(platform.ApiReadiness(house).check, house.draining))
    openapi_document.install(
        app, hot_path_documents.OPERATIONS, (*hot_path_documents.MODELS, *BULK_DOCUMENTS)
    )
    return app


def main() -> None:
    """Serve until SIGTERM."""
    parser = argparse.ArgumentParser(
        prog="bedplate_services.api", description="The API of registry and store."
    )
    parser.add_argument("--ready-file", type=Path, help="made once connections are taken")
    options = parser.parse_args()
    settings = Settings()
    app = create_app(settings)
    exit_if_refused(app.platform.registry, app.platform.store)
    serve.run(
        app,
        settings,
        settings.host,
        settings.port,
        draining=app.platform.draining,
        processes=settings.api_processes,
        ready_file=options.ready_file,
        tracing=app.platform.tracing,
    )


if __name__ == "__main__":
    main()
