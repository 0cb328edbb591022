"""Reading request bodies that come as JSON or in bulk."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, TypeVar

from fastapi import Request
from pydantic import BaseModel, ValidationError

from bedplate.codecs import ARROW, JSON, content_type
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


def parse(model: type[ModelT], data: bytes) -> ModelT:
    """A JSON body as its document.

    Raises:
        InvalidRequest: naming what is wrong where; EmptyBatch and BatchTooLarge for lists out of bounds.
    """
    try:
        return model.model_validate_json(data)
    except ValidationError as error:
        raise problems.from_validation(error.errors(include_url=False, include_input=False)) from error
