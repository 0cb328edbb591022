"""A span for each request, by OpenTelemetry's standard ASGI instrumentation."""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send

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
    """Names the span after the route, which is known once the request was answered."""

    def __init__(self, app: ASGIApp, tracing: Tracing) -> None:
        self._app = app
        self._tracing = tracing

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._app(scope, receive, send)
        finally:
            if scope["type"] == "http":
                self._tracing.name(f"{scope['method']} {route_of(scope)}", {"http.route": route_of(scope)})
                self._tracing.note(_names(scope))


def _names(scope: Scope) -> dict[str, str]:
    names = {"request_id": request_id_of(scope)}
    return names if PRINCIPAL not in scope else {**names, "team": scope[PRINCIPAL].team}
