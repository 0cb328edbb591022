"""The OpenAPI document: FastAPI's own, completed with examples, problem answers and the hot path's routes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from bedplate.errors import ERRORS_BY_CODE
from bedplate.wire.common import Problem
from bedplate_services import parameter_examples, problems
from bedplate_services.examples import BY_NAME, EXAMPLES

Operations = Mapping[str, Mapping[str, dict[str, Any]]]
"""Path -> method -> operation object."""

_REFERENCE = "#/components/schemas/{model}"
_METHODS = ("get", "put", "post", "delete")
_BYTES = {"type": "string", "format": "binary"}
_DESCRIPTIONS = {
    401: "The token is missing, unknown or revoked.",
    403: "The token's team does not own this.",
    404: "There is no such thing; the detail says which.",
    405: "The route does not take this method.",
    406: "None of the accepted media types can be answered.",
    409: "The present state of the platform says no.",
    410: "It was there and is gone; start again from the newest state.",
    412: "Somebody else moved it meanwhile.",
    413: "The body or the batch is too large.",
    415: "The body's media type is not read here.",
    416: "The range begins behind the object's end.",
    422: "The request is malformed; the detail says what would mend it.",
    500: "A defect; the request id finds it in the logs.",
    503: "A part of the platform cannot be reached; try again.",
    507: "A disk or the object store has no room left; nothing was written.",
}


def problem_responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """``responses=`` of a route that may answer with these statuses beyond the ones every route has."""
    return {status: _problem(status) for status in statuses}


def _problem(status: int) -> dict[str, Any]:
    code = next(code for code, known in problems.STATUS_BY_CODE.items() if known == status)
    example = {
        "type": f"urn:bedplate:problem:{code}",
        "title": ERRORS_BY_CODE[code].title,
        "status": status,
        "detail": _DESCRIPTIONS[status],
        "code": code,
        "request_id": EXAMPLES[Problem]["request_id"],
    }
    schema = {"$ref": _REFERENCE.format(model="Problem")}
    return {
        "description": _DESCRIPTIONS[status],
        "content": {problems.MEDIA_TYPE: {"schema": schema, "example": example}},
    }


def reference(model: type[BaseModel]) -> dict[str, str]:
    """A JSON schema that refers to the model's component."""
    return {"$ref": _REFERENCE.format(model=model.__name__)}


def install(app: FastAPI, operations: Operations, models: tuple[type[BaseModel], ...] = ()) -> None:
    """Make ``app.openapi()`` give the completed document.

    Args:
        operations: routes that FastAPI does not serve itself.
        models: documents that only those routes use.
    """

    def build() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = get_openapi(
                title=app.title,
                version=app.version,
                description=app.description,
                routes=app.routes,
                tags=app.openapi_tags,
            )
            app.openapi_schema = _complete(document, operations, (Problem, *models))
        return app.openapi_schema

    app.openapi = build  # type: ignore[method-assign]  # the way FastAPI documents for extending the document


def _complete(
    document: dict[str, Any], operations: Operations, models: tuple[type[BaseModel], ...]
) -> dict[str, Any]:
    components = document.setdefault("components", {}).setdefault("schemas", {})
    _, extra = models_json_schema([(model, "validation") for model in models], ref_template=_REFERENCE)
    for name, schema in extra["$defs"].items():
        components.setdefault(name, schema)
    for unused in ("HTTPValidationError", "ValidationError"):
        components.pop(unused, None)
    for name, schema in components.items():
        example = example_of(name)
        if example is not None:
            schema["examples"] = [example]
    for path, methods in operations.items():
        document["paths"].setdefault(path, {}).update(methods)
    for path, methods in document["paths"].items():
        for method in _METHODS:
            if method in methods:
                _complete_operation(path, method, methods[method])
    document["paths"] = dict(sorted(document["paths"].items()))
    return document


def example_of(name: str) -> dict[str, Any] | None:
    """The example of a component; ``Page_Team_`` is a page that holds the example of ``Team``."""
    if name.startswith("Page_"):
        inner = BY_NAME.get(name.removeprefix("Page_").removesuffix("_"))
        return None if inner is None else {"items": [inner], "next": None}
    return BY_NAME.get(name)


def _complete_operation(path: str, method: str, operation: dict[str, Any]) -> None:
    responses = operation.setdefault("responses", {})
    responses.pop("422", None)
    implied = {500, 503}
    if operation.get("security"):
        implied.add(401)
        if method != "get":
            implied |= {403, 507}
    if "{" in path:
        implied |= {404, 422}
    for parameter in operation.get("parameters", ()):
        implied.add(422)
        parameter["example"] = parameter_examples.example_of(path, parameter)
    if "requestBody" in operation:
        implied |= {413, 415, 422}
    for status in implied:
        responses.setdefault(str(status), _problem(status))
    operation["responses"] = dict(sorted(responses.items()))


def bulk_body(model: type[BaseModel], arrow: str, columns: str, raw: str | None = None) -> dict[str, Any]:
    """``openapi_extra=`` of a route that reads JSON or a bulk body.

    Args:
        arrow: the Arrow stream's media type.
        columns: what its columns are.
        raw: what a raw body holds, if the route reads one.
    """
    content: dict[str, Any] = {
        "application/json": {"schema": reference(model)},
        arrow: {"schema": {**_BYTES, "description": f"Arrow IPC stream: {columns}"}},
    }
    if raw is not None:
        content["application/octet-stream"] = {"schema": {**_BYTES, "description": raw}}
    return {"requestBody": {"required": True, "content": content}}


def arrow_answer(columns: str) -> dict[int | str, dict[str, Any]]:
    """``responses=`` of a route that answers with an Arrow stream."""
    schema = {**_BYTES, "description": f"Arrow IPC stream: {columns}"}
    return {200: {"content": {"application/vnd.apache.arrow.stream": {"schema": schema}}}}
