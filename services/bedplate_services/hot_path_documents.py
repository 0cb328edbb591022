"""The hot path's routes as OpenAPI operations: FastAPI does not serve them, so it cannot describe them."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from bedplate.codecs import ARROW, HEADER_AFTER, JSON, RAW
from bedplate.wire.filters import Filter
from bedplate.wire.store import LookupAnswer, LookupRequest, SearchAnswer, SearchHit, SearchRequest
from bedplate_services.auth import SECURITY_SCHEME
from bedplate_services.hot_path import LOOKUP, SEARCH
from bedplate_services.openapi import problem_responses, reference
from bedplate_services.shards.answering import ALLOW_PARTIAL

MODELS: tuple[type[BaseModel], ...] = (
    LookupRequest,
    LookupAnswer,
    SearchRequest,
    SearchAnswer,
    SearchHit,
    Filter,
)
_HEADERS = {
    "x-request-id": "the id of the request, also in the logs",
    "x-bedplate-version": "the version that answered, as a number: core@7",
    "x-bedplate-snapshot": "the snapshot that answered; 0 where only upserts exist",
    "x-bedplate-dim": "dimension of the space",
    "x-bedplate-dtype": "element type of the vectors in the answer",
    "x-bedplate-rows": "number of keys or queries answered",
    "x-bedplate-shards": "where store nodes answer: how many of the shards that were needed did, as 7/8",
}


def _bytes(description: str) -> dict[str, Any]:
    return {"schema": {"type": "string", "format": "binary", "description": description}}


def _parameter(name: str, where: str, schema: dict[str, Any], description: str) -> dict[str, Any]:
    return {
        "name": name,
        "in": where,
        "required": where == "path",
        "schema": schema,
        "description": description,
    }


_PATH = [
    _parameter(
        "reference", "path", {"type": "string", "example": "core@production"}, "version by number or alias"
    ),
    _parameter("space", "path", {"type": "string", "example": "item"}, "the version's space"),
    _parameter(
        HEADER_AFTER,
        "header",
        {"type": "string", "example": "core@7/item:12"},
        "token of a write that the answer must see; 409 where it is of another space",
    ),
]
_PARTIAL = _parameter(
    ALLOW_PARTIAL,
    "query",
    {"type": "boolean", "default": False},
    "where store nodes answer: take what the shards that answer in time have, else 503 names the others",
)
_SEARCH_QUERY = [
    _parameter(
        "k", "query", {"type": "integer", "minimum": 1, "maximum": 1000, "default": 10}, "bulk bodies"
    ),
    _parameter(
        "ef", "query", {"type": "integer", "minimum": 1, "maximum": 4096}, "search effort, bulk bodies"
    ),
    _parameter(
        "recall",
        "query",
        {"type": "number", "exclusiveMinimum": 0, "maximum": 1, "example": 0.99},
        "bulk bodies: the effort that reached it when the index was tuned",
    ),
    _parameter(
        "filter",
        "query",
        {"type": "string", "example": '{"attribute": "year", "at_least": 1990}'},
        "bulk bodies: only rows whose attributes pass; the same JSON as `filter` of a document",
    ),
    _parameter(
        "dim",
        "query",
        {"type": "integer", "minimum": 1, "maximum": 65536},
        "raw bodies: the dimension the vectors were written with; refused if it is not the space's",
    ),
    _parameter(
        "by",
        "query",
        {"type": "string", "enum": ["vector", "key"], "default": "vector"},
        "raw bodies: what they hold",
    ),
]


def _operation(
    name: str,
    summary: str,
    description: str,
    parameters: list[dict[str, Any]],
    models: tuple[type[BaseModel], type[BaseModel]],
    bodies: tuple[str, str],
    answers: tuple[str, str],
) -> dict[str, Any]:
    asked, answered = models
    headers = {key: {"schema": {"type": "string"}, "description": text} for key, text in _HEADERS.items()}
    return {
        "tags": ["spaces"],
        "summary": summary,
        "description": description,
        "operationId": name,
        "security": [{SECURITY_SCHEME.scheme_name: []}],
        "parameters": parameters,
        "requestBody": {
            "required": True,
            "content": {
                JSON: {"schema": reference(asked)},
                ARROW: _bytes(bodies[0]),
                RAW: _bytes(bodies[1]),
            },
        },
        "responses": {
            "200": {
                "description": "Found what there was",
                "headers": headers,
                "content": {
                    JSON: {"schema": reference(answered)},
                    ARROW: _bytes(answers[0]),
                    RAW: _bytes(answers[1]),
                },
            },
            **{str(status): answer for status, answer in problem_responses(406, 409, 503).items()},
        },
    }


OPERATIONS = {
    LOOKUP: {
        "post": _operation(
            "lookup",
            "Look vectors up by key",
            "In the order of the keys. An unknown key is no error: its `found` is false and its vector zero. "
            "10,000 keys at most as JSON, 100,000 in bulk.",
            [*_PATH, _PARTIAL],
            (LookupRequest, LookupAnswer),
            ("Arrow IPC stream: a column key", "little-endian int64 keys"),
            (
                "Arrow IPC stream: columns key, found, vector",
                "row-major little-endian vectors, then a byte a row: 1 found, 0 not, 2 unanswered; Accept "
                "may say ;dtype=float32",
            ),
        )
    },
    SEARCH: {
        "post": _operation(
            "search",
            "Search by vector or by key",
            "The best rows for each query. By key, the key's own row is left out. 10,000 queries at most, "
            "and 1,000,000 hits (queries times k).",
            [*_PATH, *_SEARCH_QUERY, _PARTIAL],
            (SearchRequest, SearchAnswer),
            (
                "Arrow IPC stream: a column vector or key",
                "row-major little-endian float32 vectors; with by=key int64 keys",
            ),
            (
                "Arrow IPC stream: columns query, key, score",
                "int64 keys [q, k], then float32 scores [q, k], little-endian; missing hits are -1 and -inf; "
                "by key then a byte a query: 1 its key exists, 0 not, 2 unanswered",
            ),
        )
    },
}
