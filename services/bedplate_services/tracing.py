"""A span for each request, by OpenTelemetry's standard ASGI instrumentation."""

from __future__ import annotations

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from bedplate_services.auth import PRINCIPAL
from bedplate_services.edge import route_of
from bedplate_services.problems import request_id_of
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
