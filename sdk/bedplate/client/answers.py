"""From answers to documents and errors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import httpx
from pydantic import BaseModel, ValidationError

from bedplate.errors import (
    BatchTooLarge,
    BedplateError,
    Conflict,
    Forbidden,
    InternalError,
    InvalidRequest,
    NotAcceptable,
    NotFound,
    Unauthenticated,
    Unavailable,
    UnsupportedMediaType,
    error_from_problem,
)

ModelT = TypeVar("ModelT", bound=BaseModel)

_BY_STATUS: Mapping[int, type[BedplateError]] = {
    400: InvalidRequest,
    401: Unauthenticated,
    403: Forbidden,
    404: NotFound,
    406: NotAcceptable,
    409: Conflict,
    410: Conflict,
    412: Conflict,
    413: BatchTooLarge,
    415: UnsupportedMediaType,
    422: InvalidRequest,
    502: Unavailable,
    503: Unavailable,
    504: Unavailable,
}
"""For answers that carry no problem document: they come from a proxy, not from Bedplate."""


def error_of(response: httpx.Response) -> BedplateError:
    """The exception that an answer of status 400 and above stands for."""
    request_id = response.headers.get("x-request-id") or response.request.headers.get("x-request-id")
    try:
        problem = response.json()
    except ValueError:
        problem = None
    if isinstance(problem, dict) and isinstance(problem.get("code"), str):
        return error_from_problem(problem, request_id=request_id)
    kind = _BY_STATUS.get(response.status_code, InternalError)
    error = kind(
        f"{response.request.method} {response.request.url.copy_with(query=None)} was answered with "
        f"{response.status_code} {response.reason_phrase}, without an explanation; "
        "is that URL a Bedplate platform's?"
    )
    error.request_id = request_id
    return error


def read_document(model: type[ModelT], response: httpx.Response) -> ModelT:
    """The JSON answer as ``model``; members a newer platform added are passed over.

    Raises:
        InternalError: the answer is not that document.
    """
    try:
        return model.model_validate_json(response.content, extra="ignore")
    except ValidationError as error:
        raise _unreadable(response, model.__name__, error) from error


def read_list(model: type[ModelT], response: httpx.Response) -> tuple[list[ModelT], str | None]:
    """``(documents, cursor of the next page)`` of a page, or of a bare JSON list."""
    try:
        answer = response.json()
    except ValueError as error:
        raise _unreadable(response, f"list of {model.__name__}", error) from error
    rows, cursor = (answer.get("items"), answer.get("next")) if isinstance(answer, dict) else (answer, None)
    if not isinstance(rows, list):
        raise _unreadable(response, f"list of {model.__name__}", ValueError("no list"))
    try:
        return [model.model_validate(row, extra="ignore") for row in rows], cursor
    except ValidationError as error:
        raise _unreadable(response, f"list of {model.__name__}", error) from error


def _unreadable(response: httpx.Response, what: str, error: Exception) -> InternalError:
    unreadable = InternalError(
        f"The answer to {response.request.method} {response.request.url.path} is no {what} that this SDK can "
        f"read ({str(error).splitlines()[0]}); are SDK and platform of the same version?"
    )
    unreadable.request_id = response.headers.get("x-request-id")
    return unreadable


def build(model: type[ModelT], **members: Any) -> ModelT:
    """A document to be sent.

    Raises:
        InvalidRequest: naming the first member that is not allowed, before anything is sent.
    """
    try:
        return model(**members)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or model.__name__
        raise InvalidRequest(f"{where}: {first['msg']} (given: {str(first['input'])[:80]!r}).") from error
