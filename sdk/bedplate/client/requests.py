"""The few shapes of request that operations are made of."""

from __future__ import annotations

from datetime import datetime
from typing import TypeAlias, TypeVar
from urllib.parse import quote

import httpx
from pydantic import BaseModel

from bedplate.client.answers import read_document, read_list
from bedplate.client.effects import Request, Steps
from bedplate.client.steps import exchange
from bedplate.codecs import HEADER_AFTER, JSON
from bedplate.errors import InternalError, InvalidRequest

ModelT = TypeVar("ModelT", bound=BaseModel)
Listing: TypeAlias = list[ModelT]
"""A list, for classes that have a method of that name."""
Parameter = str | int | float | bool | datetime | None


def path(*parts: str | int) -> str:
    """``/v1/a/b%2Fc``: each part escaped; ``@`` stays readable."""
    texts = [str(part) for part in parts]
    for text in texts:
        # An empty or dotted part would silently address another resource.
        if text in ("", ".", ".."):
            raise InvalidRequest(f"{text!r} is not a name.")
    return "/v1/" + "/".join(quote(text, safe="@") for text in texts)


def parameters(**values: Parameter) -> dict[str, str]:
    """Query parameters; None is left out, times become ISO 8601 with their zone.

    Raises:
        InvalidRequest: a time without a zone.
    """
    return {name.rstrip("_"): _text(name, value) for name, value in values.items() if value is not None}


def _text(name: str, value: Parameter) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise InvalidRequest(f"{name}: the time {value} needs a zone, e.g. datetime.now(UTC).")
        return value.isoformat()
    return str(value)


def get(url: str, model: type[ModelT], params: dict[str, str] | None = None) -> Steps[ModelT]:
    """GET one document."""
    response = yield from exchange(Request("GET", url, params=params or {}, idempotent=True))
    return read_document(model, response)


def get_list(url: str, model: type[ModelT], params: dict[str, str] | None = None) -> Steps[list[ModelT]]:
    """GET every page of a list."""
    found: list[ModelT] = []
    seen: set[str] = set()
    asked = dict(params or {})
    while True:
        response = yield from exchange(Request("GET", url, params=asked, idempotent=True))
        documents, cursor = read_list(model, response)
        found += documents
        if cursor is None:
            return found
        if cursor in seen:
            raise InternalError(f"GET {url} gave the cursor {cursor!r} twice; the list would never end.")
        seen.add(cursor)
        asked["cursor"] = cursor


def send(
    method: str,
    url: str,
    body: BaseModel | None,
    model: type[ModelT],
    *,
    params: dict[str, str] | None = None,
    idempotent: bool = False,
) -> Steps[ModelT]:
    """Send one document (or none) and read one."""
    response = yield from exchange(json_request(method, url, body, params=params, idempotent=idempotent))
    return read_document(model, response)


def json_request(
    method: str,
    url: str,
    body: BaseModel | None,
    *,
    params: dict[str, str] | None = None,
    idempotent: bool = False,
    accept: str = JSON,
) -> Request:
    """A request with a JSON document as its body."""
    content = None if body is None else body.model_dump_json().encode()
    headers = {"accept": accept} if body is None else {"accept": accept, "content-type": JSON}
    return Request(method, url, params or {}, headers, content, idempotent)


def bulk(
    url: str,
    content: bytes,
    media: str,
    *,
    accept: str = JSON,
    method: str = "POST",
    params: dict[str, str] | None = None,
    idempotent: bool = True,
    after: str | None = None,
    hot: bool = False,
) -> Steps[httpx.Response]:
    """Send a bulk body (raw bytes or Arrow).

    ``after`` is the token of a write that the answer must see; ``hot`` marks a small, frequent read.
    """
    headers = {"accept": accept, "content-type": media}
    if after is not None:
        headers[HEADER_AFTER] = after
    request = Request(method, url, params or {}, headers, content, idempotent, hot=hot)
    return (yield from exchange(request))
