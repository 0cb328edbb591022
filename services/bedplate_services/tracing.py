"""A span for each request, by OpenTelemetry's standard ASGI instrumentation, and for each call of a store
node, whose connections no instrumentation knows.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from typing import Any
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from bedplate_services.auth import PRINCIPAL
from bedplate_services.edge import route_of
from bedplate_services.problems import request_id_of
from bedplate_services.shards.connections import NodeAnswer
from bedplate_services.shards.fan_out import Connections
from bedplate_store.tracing import Tracing

_UNTRACED = "healthz,readyz,metrics"
"""Asked for every few seconds by machines."""


def traced(app: ASGIApp, tracing: Tracing) -> ASGIApp:
    """The application with a span around each request; itself where tracing is off."""
    if not tracing.on:
        return app
    from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware

    return OpenTelemetryMiddleware(
        _Named(app, tracing),
        tracer_provider=tracing.provider,
        excluded_urls=_UNTRACED,
        exclude_spans=["receive", "send"],
    )


class _Named:
    """Names the span after the route, which is known when the answer begins; when it has ended, so has the
    span.
    """

    def __init__(self, app: ASGIApp, tracing: Tracing) -> None:
        self._app = app
        self._tracing = tracing

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def named(message: Message) -> None:
            if message["type"] == "http.response.start":
                route = route_of(scope)
                self._tracing.name(f"{scope['method']} {route}", {"http.route": route})
                self._tracing.note(_names(scope))
            await send(message)

        await self._app(scope, receive, named if scope["type"] == "http" else send)


def _names(scope: Scope) -> dict[str, str]:
    names = {"request_id": request_id_of(scope)}
    return names if PRINCIPAL not in scope else {**names, "team": scope[PRINCIPAL].team}


def traced_calls(connections: Connections, tracing: Tracing) -> Connections:
    """The connections with a span around each call; themselves where tracing is off."""
    if not tracing.on:
        return connections
    from opentelemetry.trace import SpanKind, StatusCode

    return _TracedCalls(connections, tracing.provider.get_tracer(__name__), SpanKind.CLIENT, StatusCode.ERROR)


class _TracedCalls:
    """Attributes are named as OpenTelemetry's conventions name those of HTTP clients."""

    def __init__(self, connections: Connections, tracer: Any, kind: Any, failed: Any) -> None:
        self._connections = connections
        self._tracer = tracer
        self._kind, self._failed = kind, failed

    def post(self, url: str, target: str, body: bytes, requests: Sequence[str]) -> Awaitable[NodeAnswer]:
        return self._post(url, target, body, requests)

    async def _post(self, url: str, target: str, body: bytes, requests: Sequence[str]) -> NodeAnswer:
        address = urlsplit(url)
        attributes = {
            "http.request.method": "POST",
            "server.address": address.hostname,
            "server.port": address.port,
            "url.full": f"{url}{target}",
        }
        name = f"POST {target.partition('?')[0]}"
        with self._tracer.start_as_current_span(name, kind=self._kind, attributes=attributes) as span:
            try:
                answer = await self._connections.post(url, target, body, requests)
            except asyncio.CancelledError as error:  # no Exception, so the span does not note it by itself
                span.record_exception(error)
                span.set_status(self._failed, "no answer before the deadline")
                raise
            span.set_attribute("http.response.status_code", answer.status)
            return answer
