"""Reading request bodies that come as JSON or in bulk."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, TypeVar

from fastapi import Request
from pydantic import BaseModel, ValidationError
from starlette.types import Receive

from bedplate.codecs import ARROW, JSON, content_type
from bedplate.errors import InvalidRequest
from bedplate_services import problems

ModelT = TypeVar("ModelT", bound=BaseModel)


class Body(NamedTuple):
    """A whole body and its media type."""

    media: str
    data: bytes


async def read(request: Request, allowed: Sequence[str] = (JSON, ARROW)) -> Body:
    """The body of a route that takes several media types.

    Raises:
        UnsupportedMediaType: before anything is read.
    """
    media = content_type(request.headers.get("content-type"), allowed)
    return Body(media, await request.body())


async def whole_body(receive: Receive) -> bytes:
    """The body of a raw ASGI request.

    Raises:
        InvalidRequest: the connection closed before it was there.
    """
    message = await receive()
    body: bytes = message.get("body", b"")
    if not message.get("more_body", False):
        return body
    chunks = [body]
    while message.get("more_body", False):
        message = await receive()
        if message["type"] == "http.disconnect":
            raise InvalidRequest("The connection closed before the whole body had come.")
        chunks.append(message.get("body", b""))
    return b"".join(chunks)


def parse(model: type[ModelT], data: bytes) -> ModelT:
    """A JSON body as its document.

    Raises:
        InvalidRequest: naming what is wrong where; EmptyBatch and BatchTooLarge for lists out of bounds.
    """
    try:
        return model.model_validate_json(data)
    except ValidationError as error:
        raise problems.from_validation(error.errors(include_url=False, include_input=False)) from error
