"""What both runners do to a request: build it for httpx, and tell errors of its connection as Unavailable."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import httpx

from bedplate.client.effects import Request
from bedplate.errors import Unavailable


def prepared(http: httpx.Client | httpx.AsyncClient, request: Request) -> httpx.Request:
    """The httpx request, with its id; the token is taken off where it must not go."""
    built = http.build_request(
        request.method,
        request.url,
        params=dict(request.params) or None,
        headers={"x-request-id": request.request_id, **request.headers},
        content=request.content,
        timeout=request.timeout_seconds or httpx.USE_CLIENT_DEFAULT,
    )
    if not request.authenticated:
        built.headers.pop("authorization", None)
    return built


@contextmanager
def reported(request: httpx.Request) -> Iterator[None]:
    """Turn errors of the connection into Unavailable."""
    try:
        yield
    except httpx.TransportError as error:
        raise unreachable(request, error) from error


def unreachable(request: httpx.Request, error: httpx.TransportError) -> Unavailable:
    """Unavailable that tells where nobody answered and what to do about it."""
    where = f"{request.url.scheme}://{request.url.netloc.decode()}"
    trouble = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    mended = Unavailable(
        f"No answer from {where} ({trouble}). Start the platform with `bedplate up`, or point BEDPLATE_URL "
        "or --url at a running one."
    )
    mended.request_id = request.headers.get("x-request-id")
    return mended
