"""Errors as HTTP answers: one table from error code to status, and problem documents (RFC 9457)."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from typing import Any

import orjson
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from sqlalchemy.exc import DataError, DBAPIError
from starlette.exceptions import HTTPException
from starlette.types import Scope

from bedplate.databases import DATABASE_AWAY, sqlstate_of
from bedplate.errors import (
    BatchTooLarge,
    BedplateError,
    EmptyBatch,
    Forbidden,
    InternalError,
    InvalidRequest,
    MethodNotAllowed,
    NotAcceptable,
    NotFound,
    StorageFull,
    Unauthenticated,
    Unavailable,
    UnsupportedMediaType,
)
from bedplate.full_disks import is_full_disk
from bedplate_services.logging import get_logger

_log = get_logger(__name__)
MEDIA_TYPE = "application/problem+json"
REQUEST_ID = "bedplate_request_id"

STATUS_BY_CODE: Mapping[str, int] = {
    "invalid_request": 422,
    "empty_batch": 422,
    "batch_too_large": 413,
    "dimension_mismatch": 422,
    "non_finite_vectors": 422,
    "key_type_mismatch": 422,
    "event_in_future": 422,
    "checkpoint_invalid": 422,
    "digest_mismatch": 422,
    "signature_mismatch": 422,
    "method_not_allowed": 405,
    "range_not_satisfiable": 416,
    "unauthenticated": 401,
    "forbidden": 403,
    "not_found": 404,
    "conflict": 409,
    "already_exists": 409,
    "alias_moved": 412,
    "snapshot_moved": 412,
    "snapshot_gone": 410,
    "shard_moved": 412,
    "version_immutable": 409,
    "version_not_ready": 409,
    "space_not_ready": 409,
    "readers_not_ready": 409,
    "events_out_of_order": 409,
    "write_token_mismatch": 409,
    "lease_lost": 409,
    "job_failed": 409,
    "unsupported_media_type": 415,
    "not_acceptable": 406,
    "unavailable": 503,
    "too_many_pending_writes": 503,
    "shards_unanswered": 503,
    "storage_full": 507,
    "internal_error": 500,
    "object_damaged": 500,
}

_FRAMEWORK_ERRORS: Mapping[int, type[BedplateError]] = {
    401: Unauthenticated,
    403: Forbidden,
    404: NotFound,
    405: MethodNotAllowed,
    406: NotAcceptable,
    413: BatchTooLarge,
    415: UnsupportedMediaType,
    503: Unavailable,
}
_BY_FAULT: Mapping[str, type[InvalidRequest]] = {"too_long": BatchTooLarge, "too_short": EmptyBatch}
"""What pydantic calls a list out of its bounds; text out of bounds has other names."""
_MAX_REPORTED = 20
_POSTGRES_DISK_FULL = "53100"
_WAITED = {
    "57014": "The metadata database took longer than BEDPLATE_DATABASE_STATEMENT_SECONDS",
    "55P03": "Another transaction kept what this one needs longer than BEDPLATE_DATABASE_LOCK_SECONDS",
    "25P03": "The transaction did nothing for longer than BEDPLATE_DATABASE_IDLE_IN_TRANSACTION_SECONDS",
    "40001": "Others were changing the same rows",
    "40P01": "Others were changing the same rows",
}
"""What PostgreSQL gave up, by SQLSTATE; the last two after all attempts."""
_RESERVED = frozenset({"type", "title", "status", "detail", "code", "request_id"})


def known_class(error: BedplateError) -> type[BedplateError]:
    """The nearest class of the error whose code is in the table; rooms may refine classes without
    telling HTTP.
    """
    for candidate in type(error).__mro__:
        code = candidate.__dict__.get("code")
        if code in STATUS_BY_CODE and issubclass(candidate, BedplateError):
            return candidate
    return InternalError


def status_of(error: BedplateError) -> int:
    return STATUS_BY_CODE[known_class(error).code]


def document(error: BedplateError, request_id: str) -> dict[str, Any]:
    """The problem document of an error; the error's context becomes further members."""
    kind = known_class(error)
    extra = {name: value for name, value in error.context.items() if name not in _RESERVED}
    return {
        "type": f"urn:bedplate:problem:{kind.code}",
        "title": type(error).title,
        "status": STATUS_BY_CODE[kind.code],
        "detail": error.detail,
        "code": kind.code,
        "request_id": request_id,
        **extra,
    }


def body(error: BedplateError, request_id: str) -> bytes:
    return orjson.dumps(document(error, request_id), default=str, option=orjson.OPT_SERIALIZE_NUMPY)


def headers_of(error: BedplateError) -> dict[str, str]:
    """Headers that the status asks for."""
    if isinstance(error, Unauthenticated):
        return {"www-authenticate": "Bearer"}
    if isinstance(error, Unavailable):
        return {"retry-after": "1"}
    return {}


def request_id_of(scope: Scope) -> str:
    return str(scope.get(REQUEST_ID, ""))


def from_exception(error: Exception) -> BedplateError:
    """What the client is told about any exception; messages of drivers and defects stay in the log."""
    if isinstance(error, BedplateError):
        return error
    if isinstance(error, RequestValidationError):
        return from_validation(error.errors())
    if isinstance(error, HTTPException):
        return _FRAMEWORK_ERRORS.get(error.status_code, InvalidRequest)(_framework_detail(error))
    if is_full_disk(error) or (isinstance(error, DBAPIError) and _is_full_database(error)):
        return StorageFull(
            "A disk of the platform is full: free room on it or give it more, then try again. Nothing was "
            "written; reads go on. The log names the file with the request id."
        )
    waited = _WAITED.get(sqlstate_of(error) or "")
    if waited is not None:
        return Unavailable(f"{waited}; try again in a moment.")
    if isinstance(error, DATABASE_AWAY) or (isinstance(error, DBAPIError) and error.connection_invalidated):
        return Unavailable("The metadata database cannot be reached just now; try again in a moment.")
    if isinstance(error, DataError | OverflowError):
        # Numbers beyond 64 bits and NUL characters pass as JSON and are refused by the database.
        return InvalidRequest(
            "A value in the request cannot be stored: a number is too large, or a text holds a NUL character."
        )
    return InternalError(
        "Something broke inside the platform; the request id finds it in the logs. Trying again may help."
    )


def _is_full_database(error: DBAPIError) -> bool:
    """SQLite says so by its error code, PostgreSQL by its SQLSTATE."""
    cause = error.orig
    return (
        getattr(cause, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL
        or getattr(cause, "sqlstate", None) == _POSTGRES_DISK_FULL
    )


def from_validation(errors: Sequence[Any]) -> InvalidRequest:
    """One sentence about the first fault, all faults (20 at most) as ``errors``; inputs are not echoed."""
    faults = [
        {"where": "/".join(str(part) for part in error.get("loc", ())), "message": str(error.get("msg", ""))}
        for error in errors[:_MAX_REPORTED]
    ]
    first = faults[0] if faults else {"where": "body", "message": "cannot be read"}
    kind = _BY_FAULT.get(str(errors[0].get("type")) if errors else "", InvalidRequest)
    return kind(
        f"{first['where'] or 'body'}: {first['message']}. See /docs for the document expected here.",
        errors=faults,
    )


def _framework_detail(error: HTTPException) -> str:
    if error.status_code == 404:
        return "There is no such route; /docs lists them all."
    if error.status_code == 405:
        allowed = (error.headers or {}).get("Allow") or (error.headers or {}).get("allow")
        return f"The route does not take this method; it takes {allowed}." if allowed else "Wrong method."
    return str(error.detail)


def response(error: BedplateError, scope: Scope) -> Response:
    return Response(
        body(error, request_id_of(scope)), status_of(error), headers_of(error), media_type=MEDIA_TYPE
    )


async def _answer(request: Request, error: Exception) -> Response:
    told = from_exception(error)
    if isinstance(told, StorageFull) or (isinstance(error, BedplateError) and status_of(told) >= 500):
        # Raised on purpose, so nobody further out logs it.
        _log.error("request failed", path=request.url.path, exc_info=error)
    answer = response(told, request.scope)
    if isinstance(error, HTTPException) and error.headers:
        answer.headers.update(error.headers)
    return answer


def install(app: FastAPI) -> None:
    """Answer every error of the application with a problem document."""
    for kind in (BedplateError, RequestValidationError, HTTPException, Exception):
        app.add_exception_handler(kind, _answer)
