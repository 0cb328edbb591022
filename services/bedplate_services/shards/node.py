"""A store node: a process that answers for its shards. ``python -m bedplate_services.shards.node``.

Only the API asks it, with the secret that both know; who may read what is decided there.
"""

from __future__ import annotations

import hmac
from urllib.parse import parse_qsl

import structlog
from starlette.concurrency import run_in_threadpool
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from bedplate.codecs import RAW, decode_vectors_raw, encode_lookup_raw
from bedplate.databases import exit_if_refused
from bedplate.errors import InvalidRequest, NotFound, SnapshotGone, Unauthenticated, Unavailable
from bedplate_services import serve
from bedplate_services.bodies import whole_body
from bedplate_services.coalescing import SearchQueue
from bedplate_services.composition import open_objects, system_clock
from bedplate_services.draining import Draining
from bedplate_services.edge import ROUTE, BodyLimits, Edge, header
from bedplate_services.lane.protocol import STATE
from bedplate_services.metrics import Metrics, PrometheusMetrics
from bedplate_services.routes.platform import refuse_if_draining
from bedplate_services.settings import Settings
from bedplate_services.shards.exchange import (
    MISSING,
    PASSED,
    PREFIX,
    REQUEST_IDS,
    SearchSetting,
    ShardAsk,
    decode_keys,
    dtype_of,
    encode_hits,
)
from bedplate_services.shards.node_lane import NodeLane
from bedplate_store.announcing import ReaderAnnouncer
from bedplate_store.database import Database
from bedplate_store.shard_nodes import ShardNode
from bedplate_store.shard_views import SequencePassed, ShardGroup, ShardMissing
from bedplate_store.tracing import start_tracing

_INLINE_BYTES = 16 << 10
_ROUTES = {f"{PREFIX}lookup", f"{PREFIX}search"}


class NodeApp:
    """The ASGI application on a :class:`ShardNode`, which runs from the lifespan's start to its end."""

    def __init__(
        self,
        database: Database,
        node: ShardNode,
        announcer: ReaderAnnouncer,
        secret: str,
        metrics: Metrics,
        draining: Draining,
        *,
        traced: bool,
    ) -> None:
        self.database = database
        self._node = node
        self._announcer = announcer
        self._authorization = f"Bearer {secret}".encode()
        self._metrics = metrics
        self._queue = SearchQueue()
        self.draining = draining
        # Requests in the lane have no span: where all are to have one, they take the ordinary path.
        self._lane = None if traced else NodeLane(node, secret, metrics, self._queue, draining)
        self._edge: ASGIApp = Edge(self._answer, metrics, BodyLimits(), self.draining, REQUEST_IDS)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            if "state" in scope and self._lane is not None:
                scope["state"][STATE] = self._lane
            await self._lifespan(receive, send)
        else:
            await self._edge(scope, receive, send)

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        await receive()
        self._node.start()
        self._announcer.start()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await run_in_threadpool(self._close)
        await send({"type": "lifespan.shutdown.complete"})

    def _close(self) -> None:
        self._announcer.close()
        self._node.close()

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] in _ROUTES:
            scope[ROUTE] = scope["path"]
            response = await self._shards(scope, receive)
        else:
            response = self._health(scope)
        await response(scope, receive, send)

    def _health(self, scope: Scope) -> Response:
        path = scope[ROUTE] = scope["path"]
        if path == "/healthz":
            return JSONResponse({"status": "alive"})
        if path == "/readyz":
            refuse_if_draining(self.draining)
            if not self._node.looked.is_set() or not self._announcer.told:
                raise Unavailable("The shards assigned to this node are still being opened.")
            return JSONResponse({"status": "ready"})
        if path == "/metrics":
            body, content_type = self._metrics.render()
            return Response(body, media_type=content_type)
        scope[ROUTE] = "unmatched"
        raise NotFound("There is no such route; a store node answers the API only.")

    async def _shards(self, scope: Scope, receive: Receive) -> Response:
        if not hmac.compare_digest(header(scope, b"authorization"), self._authorization):
            raise Unauthenticated("A store node answers only those who know BEDPLATE_SHARD_SECRET.")
        body = await whole_body(receive)
        query = dict(parse_qsl(scope["query_string"].decode("latin-1")))
        ask = ShardAsk.parse(query)
        key = ask.space
        structlog.contextvars.bind_contextvars(version=f"{key.foundation}@{key.version}", space=key.space)
        try:
            group = self._node.at(ask.space, ask.snapshot, ask.sequence, ask.shards)
        except (ShardMissing, SnapshotGone) as missing:
            return Response(str(missing), MISSING)
        except SequencePassed as passed:
            return Response(str(passed.sequence), PASSED)
        work = self._lookup if scope["path"].endswith("lookup") else self._search
        return Response(await work(group, body, query), media_type=RAW)

    async def _lookup(self, group: ShardGroup, body: bytes, query: dict[str, str]) -> bytes:
        def work() -> bytes:
            result = group.lookup(decode_keys(body, group.key_type), dtype_of(query))
            return encode_lookup_raw(result.found, result.vectors)

        return work() if len(body) <= _INLINE_BYTES else await run_in_threadpool(work)

    async def _search(self, group: ShardGroup, body: bytes, query: dict[str, str]) -> bytes:
        vectors = decode_vectors_raw(body, group.dim)
        setting = SearchSetting.parse(query)
        result = await self._queue.search(
            group, vectors, setting.k, setting.ef, recall=setting.recall, filter=setting.filter
        )
        return encode_hits(result.keys, result.scores)


def create_app(settings: Settings) -> NodeApp:
    """The application on what the settings name.

    Raises:
        InvalidRequest: BEDPLATE_STORE_NODE or BEDPLATE_SHARD_SECRET is not set.
    """
    if settings.store_node is None or settings.shard_secret is None:
        raise InvalidRequest(
            "A store node needs a name, and the secret that it shares with the API: set BEDPLATE_STORE_NODE "
            "and BEDPLATE_SHARD_SECRET."
        )
    settings.cache_dir.mkdir(parents=True, exist_ok=True)
    metrics = PrometheusMetrics("store_node")
    database = Database(settings.store_database_url, settings.database_limits, metrics.database_retry)
    objects = open_objects(settings, metrics)
    draining = Draining()
    node = ShardNode(
        database,
        objects,
        settings.cache_dir / "segments",
        settings.store_node,
        leaving=lambda: draining.begun,
    )
    announcer = ReaderAnnouncer(
        database,
        node,
        service="store-node",
        url=settings.store_node_base_url,
        node=settings.store_node,
        now=system_clock,
    )
    return NodeApp(
        database,
        node,
        announcer,
        settings.shard_secret.get_secret_value(),
        metrics,
        draining,
        traced=settings.tracing,
    )


def main() -> None:
    """Serve until SIGTERM."""
    settings = Settings()
    tracing = start_tracing(settings.tracing, "store-node")
    app = create_app(settings)
    exit_if_refused(app.database)
    serve.run(
        app,
        settings,
        settings.store_node_host,
        settings.store_node_port,
        draining=app.draining,
        tracing=tracing,
    )


if __name__ == "__main__":
    main()
