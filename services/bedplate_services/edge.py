"""The outermost layer of both applications: request ids, body limits, metrics and the last resort for errors.

A raw ASGI layer: it costs microseconds, and the hot path passes through it like everything else.
"""

from __future__ import annotations

import itertools
import re
import secrets
import time
from dataclasses import dataclass

import structlog
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from bedplate_services import problems
from bedplate_services.draining import Draining
from bedplate_services.logging import get_logger
from bedplate_services.metrics import Metrics

ROUTE = "bedplate_route"
_MIB = 1 << 20
REQUEST_ID = re.compile(rb"^[A-Za-z0-9._:-]{1,64}$")
_PART = re.compile(r"/parts/[^/]+$")
_NAMED = ("request_id", "team", "version", "space", "expert", "job")
"""What the lines of the log that belong to a request may name."""
_log = get_logger(__name__)


_PROCESS = secrets.token_hex(8)
_numbers = itertools.count()


def new_request_id() -> str:
    """An id that no other request has, in this process or another; cheaper than a UUID."""
    return f"{_PROCESS}{next(_numbers):016x}"


@dataclass(frozen=True)
class BodyLimits:
    """The largest request bodies, in bytes."""

    json: int = 16 * _MIB
    bulk: int = 256 * _MIB
    part: int = 64 * _MIB

    def of(self, method: str, path: str, content_type: bytes) -> int:
        if method == "PUT" and _PART.search(path):
            return self.part
        if not content_type or content_type.partition(b";")[0].strip().lower().endswith(b"json"):
            return self.json
        return self.bulk


def header(scope: Scope, name: bytes) -> bytes:
    """The value of a request header, empty where it is absent."""
    for key, value in scope["headers"]:
        if key == name:
            return bytes(value)
    return b""


class _Exchange:
    """One request and its answer: counts what comes in, stamps what goes out."""

    def __init__(
        self, scope: Scope, receive: Receive, send: Send, request_id: str, limit: int, draining: Draining
    ) -> None:
        self.scope, self._receive, self._send = scope, receive, send
        self._id = request_id.encode()
        self._draining = draining
        self._limit, self._read = limit, 0
        self.status = 0
        self.finished = False

    async def receive(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.request":
            self._read += len(message.get("body", b""))
            if self._read > self._limit:
                raise too_large(self._limit)
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message["headers"] = [*message.get("headers", ()), (b"x-request-id", self._id)]
            if self._draining.begun:
                message["headers"].append((b"connection", b"close"))
        elif message["type"] == "http.response.body" and not message.get("more_body", False):
            self.finished = True
        await self._send(message)


def too_large(limit: int) -> HTTPException:
    """As an HTTPException, because FastAPI hides any other exception raised while it reads a body."""
    return HTTPException(
        413, f"The body is larger than the {limit // _MIB} MiB taken here; send it in several requests."
    )


class Edge:
    """Wraps an ASGI application; see the module's docstring.

    Args:
        request_ids: what may be taken over from ``x-request-id``; anything else gets a new id.
    """

    def __init__(
        self,
        app: ASGIApp,
        metrics: Metrics,
        limits: BodyLimits | None = None,
        draining: Draining | None = None,
        request_ids: re.Pattern[bytes] = REQUEST_ID,
    ) -> None:
        self._app = app
        self._request_ids = request_ids
        self._metrics = metrics
        self._limits = limits or BodyLimits()
        self._draining = draining or Draining()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        given = header(scope, b"x-request-id")
        request_id = given.decode() if self._request_ids.match(given) else new_request_id()
        scope[problems.REQUEST_ID] = request_id
        limit = self._limits.of(scope["method"], scope["path"], header(scope, b"content-type"))
        exchange = _Exchange(scope, receive, send, request_id, limit, self._draining)
        structlog.contextvars.bind_contextvars(request_id=request_id)
        try:
            await self._answer(exchange, limit)
        finally:
            structlog.contextvars.unbind_contextvars(*_NAMED)
            self._metrics.request(
                scope["method"], route_of(scope), exchange.status, time.perf_counter() - started
            )

    async def _answer(self, exchange: _Exchange, limit: int) -> None:
        try:
            announced = header(exchange.scope, b"content-length")
            if announced.isdigit() and int(announced) > limit:
                raise too_large(limit)
            if header(exchange.scope, b"content-encoding") not in (b"", b"identity"):
                raise HTTPException(415, "Compressed bodies are not read here; send the body as it is.")
            await self._app(exchange.scope, exchange.receive, exchange.send)
        except Exception as error:  # noqa: BLE001  # the last resort: nothing above us can answer the client
            await self._mend(exchange, error)

    async def _mend(self, exchange: _Exchange, error: Exception) -> None:
        told = problems.from_exception(error)
        if problems.status_of(told) >= 500:
            _log.error("request failed", path=exchange.scope["path"], exc_info=error)
        if exchange.status == 0:
            await problems.response(told, exchange.scope)(exchange.scope, exchange.receive, exchange.send)
        elif not exchange.finished:
            raise error  # half an answer is out: the server must break the connection, not end it well


def route_of(scope: Scope) -> str:
    """The template of the route that answered, never the path itself: metrics must not grow with the
    input.
    """
    named = scope.get(ROUTE)
    if named:
        return str(named)
    return str(getattr(scope.get("route"), "path", "unmatched"))
