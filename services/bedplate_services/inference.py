"""The inference service: ``create_app(settings)``, or ``python -m bedplate_services.inference``."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial

import torch
from fastapi import FastAPI
from starlette.concurrency import run_in_threadpool
from starlette.types import Receive, Scope, Send

from bedplate.databases import exit_if_refused
from bedplate.errors import Unavailable
from bedplate_modeling.devices import exit_without
from bedplate_modeling.runtime import FoundationRuntime
from bedplate_registry.checkpoint_cache import CheckpointCache
from bedplate_services import openapi, problems, serve
from bedplate_services.auth import Gate
from bedplate_services.composition import Platform, build_platform
from bedplate_services.edge import BodyLimits, Edge
from bedplate_services.local_caches import local_caches
from bedplate_services.logging import get_logger
from bedplate_services.routes import inference, platform
from bedplate_services.routes.inference import Serving
from bedplate_services.serving.batching import MicroBatcher
from bedplate_services.serving.histories import HistoryCaches
from bedplate_services.serving.models import ModelKeeper
from bedplate_services.serving.passes import Passes
from bedplate_services.serving.polls import SharedPolls
from bedplate_services.serving.rankings import Ranker
from bedplate_services.serving.wanted import read_wanted
from bedplate_services.settings import Settings
from bedplate_store.impressions import ImpressionLog

DESCRIPTION = """
Target-aware embeddings for every active foundation version, and ranking with the surfaces' experts.

What is answered was logged before, byte for byte. Every route but health and metrics needs
`Authorization: Bearer <token>`; errors are `application/problem+json`.
"""
_log = get_logger(__name__)


class Inference:
    """The whole ASGI application.

    Attributes:
        http: the FastAPI application, for its OpenAPI document.
        platform: what it is built on.
        serving: models and batcher.
    """

    def __init__(self, house: Platform, limits: BodyLimits | None = None) -> None:
        self.platform = house
        self.log = ImpressionLog(house.settings.spool_dir, house.objects, house.store)
        cache = CheckpointCache(house.objects, house.settings.cache_dir, house.metrics.cache)
        keeper = ModelKeeper(
            lambda: read_wanted(house.registry),
            cache,
            house.metrics,
            load_foundation=partial(FoundationRuntime.load, device=house.settings.device),
        )
        passes = Passes(
            house.store,
            self.log,
            HistoryCaches(house.settings.history_cache_mib << 20, house.metrics),
            Ranker(house.readers),
            lambda: {one.digest for one in keeper.current.foundations.values()},
        )
        self.serving = Serving(
            keeper, SharedPolls(keeper.poll), MicroBatcher(passes, house.metrics, tracing=house.tracing)
        )
        self._caches = local_caches(
            house.readers, house.settings.cache_dir, house.now, lambda: keeper.current.digests
        )
        self.http = self._fastapi()
        self._edge = Edge(Gate(self.http, house.authenticator), house.metrics, limits, house.draining)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._edge(scope, receive, send)

    def _fastapi(self) -> FastAPI:
        @asynccontextmanager
        async def lifespan(_: FastAPI) -> AsyncIterator[None]:
            self.platform.start()
            loops = (self._follow_registry(), self._caches.keep_pruned())
            tasks = [asyncio.create_task(loop) for loop in loops]
            try:
                yield
            finally:
                for task in tasks:
                    task.cancel()
                    with suppress(asyncio.CancelledError):
                        await task
                await run_in_threadpool(self.close)

        app = FastAPI(
            title="Bedplate inference",
            version="1",
            description=DESCRIPTION,
            lifespan=lifespan,
            redoc_url=None,
        )
        app.state.platform, app.state.serving = self.platform, self.serving
        problems.install(app)
        app.include_router(inference.router)
        app.include_router(platform.health_routes(self._check, self.platform.draining))
        openapi.install(app, {})
        return app

    async def _follow_registry(self) -> None:
        while True:
            try:
                await run_in_threadpool(self.serving.keeper.poll)
            except Exception as error:  # noqa: BLE001  # a database that is away must not end the loop
                _log.warning("the registry cannot be read; serving what is loaded", exc_info=error)
            await asyncio.sleep(self.platform.settings.model_poll_seconds)

    def _check(self) -> None:
        """Raises Unavailable, saying what is missing."""
        self.serving.keeper.check()
        if not self.platform.readers.looked.is_set():
            raise Unavailable("The spaces that other inference processes read are still being opened here.")

    def close(self) -> None:
        self.serving.batcher.close()
        self.log.close()
        self.platform.close()


def create_app(
    settings: Settings, house: Platform | None = None, limits: BodyLimits | None = None
) -> Inference:
    """The application on what the settings name (or on a platform built elsewhere). Nothing is migrated."""
    return Inference(house or build_platform(settings, service="inference"), limits)


def main() -> None:
    """Serve until SIGTERM."""
    settings = Settings()
    exit_without(settings.device)
    if settings.torch_threads is not None:
        torch.set_num_threads(settings.torch_threads)
    app = create_app(settings)
    exit_if_refused(app.platform.registry, app.platform.store)
    serve.run(
        app,
        settings,
        settings.inference_host,
        settings.inference_port,
        draining=app.platform.draining,
        tracing=app.platform.tracing,
    )


if __name__ == "__main__":
    main()
