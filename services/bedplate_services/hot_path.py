"""Lookup and search: a raw ASGI application beside FastAPI.

The server, not the gather, is the cost of a lookup. So no request objects, no dependency injection, no
per-row Python for int64 keys and binary answers. See docs/adr/0008-hot-path.md.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import parse_qsl

import structlog
from starlette.concurrency import run_in_threadpool
from starlette.types import ASGIApp, Receive, Scope, Send

from bedplate.codecs import MediaType, content_type, negotiate
from bedplate.errors import InvalidRequest, MethodNotAllowed
from bedplate_services import lookups, searches
from bedplate_services.answers import Answer, headers_of, shards_header
from bedplate_services.bodies import whole_body
from bedplate_services.coalescing import SearchQueue
from bedplate_services.directory import Located, SpaceDirectory
from bedplate_services.edge import ROUTE, header
from bedplate_services.metrics import Metrics
from bedplate_services.problems import request_id_of
from bedplate_services.read_your_writes import caught_up, token_of
from bedplate_services.shards.answering import RemoteAnswers
from bedplate_store.readers import SearchResult
from bedplate_store.shard_routing import RemoteSpace

LOOKUP = "/v1/spaces/{reference}/{space}/lookup"
SEARCH = "/v1/spaces/{reference}/{space}/search"
ROUTES = {"lookup": LOOKUP, "search": SEARCH}
PATH = re.compile(r"^/v1/spaces/([^/]+)/([^/]+)/(lookup|search)$")
INLINE_BYTES = 16 << 10
"""Larger lookups run in a thread: gathering 2,048 rows takes about as long as a thread hop costs."""


class HotPath:
    """Answers POST ``.../lookup`` and ``.../search``; everything else goes to ``otherwise``.

    Args:
        remote: answers for the spaces that store nodes serve.
    """

    def __init__(
        self,
        directory: SpaceDirectory,
        remote: RemoteAnswers | None,
        metrics: Metrics,
        queue: SearchQueue,
        otherwise: ASGIApp,
    ) -> None:
        self._directory = directory
        self._queue = queue
        self._remote = remote
        self._metrics = metrics
        self._otherwise = otherwise

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        match = PATH.match(scope["path"]) if scope["type"] == "http" else None
        if match is None:
            await self._otherwise(scope, receive, send)
            return
        reference, space, verb = match.groups()
        scope[ROUTE] = ROUTES[verb]
        if scope["method"] != "POST":
            raise MethodNotAllowed("The route takes POST only.")
        located = await self._directory.locate(reference, space)
        structlog.contextvars.bind_contextvars(version=located.version, space=space)
        media = content_type(_text(scope, b"content-type"))
        accept = _acceptable(located, verb, _text(scope, b"accept"))
        body = await whole_body(receive)
        token = token_of(scope, media, body)
        if token is not None:
            located = await caught_up(self._directory, located, reference, token)
        answer = await (self._lookup if verb == "lookup" else self._search)(
            scope, located, body, media, accept
        )
        await _send(send, located, answer)

    async def _lookup(
        self, scope: Scope, located: Located, body: bytes, media: str, accept: MediaType
    ) -> Answer:
        if isinstance(located.reader, RemoteSpace):
            answer = await self._nodes.lookup(
                located, located.reader, body, media, accept, _parameters(scope), request_id_of(scope)
            )
            self._metrics.rows(LOOKUP, answer.rows, answer.missing)
            return answer

        def work() -> Answer:
            return lookups.answer(located, lookups.keys_of(body, media), accept)

        answer = work() if len(body) <= INLINE_BYTES else await run_in_threadpool(work)
        self._metrics.rows(LOOKUP, answer.rows, answer.missing)
        return answer

    async def _search(
        self, scope: Scope, located: Located, body: bytes, media: str, accept: MediaType
    ) -> Answer:
        parameters = _parameters(scope)

        def parsed() -> searches.Query:
            return searches.query_of(body, media, parameters, located.reader.dim)

        inline = len(body) <= INLINE_BYTES
        query = parsed() if inline else await run_in_threadpool(parsed)
        if isinstance(located.reader, RemoteSpace):
            answer = await self._nodes.search(
                located, located.reader, query, accept, parameters, request_id_of(scope)
            )
        elif inline:
            answer = searches.encode(located, query, await self._queued(located, query), accept)
        else:
            answer = await run_in_threadpool(searches.answer, located, query, accept)
        self._metrics.rows(SEARCH, answer.rows, answer.missing)
        return answer

    async def _queued(self, located: Located, query: searches.Query) -> SearchResult:
        recall, filter = query.recall, query.filter
        if query.keys is not None:
            return await self._queue.search_by_key(
                located.here, query.keys, query.k, query.ef, recall=recall, filter=filter
            )
        assert query.vectors is not None
        return await self._queue.search(
            located.here, query.vectors, query.k, query.ef, recall=recall, filter=filter
        )

    @property
    def _nodes(self) -> RemoteAnswers:
        assert self._remote is not None  # the directory gives no remote space without it
        return self._remote


def _acceptable(located: Located, verb: str, accept: str) -> MediaType:
    return negotiate(accept) if verb == "lookup" else searches.acceptable(located, accept)


def _text(scope: Scope, name: bytes) -> str:
    return header(scope, name).decode("latin-1")


def _parameters(scope: Scope) -> Mapping[str, str]:
    try:
        return dict(parse_qsl(scope["query_string"].decode("ascii")))
    except UnicodeDecodeError as error:
        raise InvalidRequest("The query string is not ASCII; escape it.") from error


async def _send(send: Send, located: Located, answer: Answer) -> None:
    headers = headers_of(
        media=answer.media,
        body_bytes=len(answer.body),
        version=located.version,
        snapshot=answer.snapshot,
        dim=located.reader.dim,
        dtype=answer.dtype,
        rows=answer.rows,
        shards=None if answer.shards is None else shards_header(answer.shards.answered, answer.shards.of),
    )
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": answer.body})
