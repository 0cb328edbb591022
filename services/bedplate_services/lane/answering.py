"""How the fast lane answers: the same rooms as the ordinary path, without joining what is sent anyway."""

from __future__ import annotations

from http import HTTPStatus
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bedplate.codecs import (
    RAW,
    VectorDtype,
    answer_dtype,
    decode_keys_raw,
    lookup_parts_raw,
)
from bedplate.errors import BedplateError, ShardsUnanswered
from bedplate_services import problems, searches
from bedplate_services.answers import headers_of, shards_header
from bedplate_services.auth import Authenticator
from bedplate_services.coalescing import SearchQueue
from bedplate_services.directory import Located, SpaceDirectory
from bedplate_services.draining import Draining
from bedplate_services.edge import new_request_id
from bedplate_services.hot_path import INLINE_BYTES, ROUTES
from bedplate_services.lane.heads import Ask, read_head
from bedplate_services.lane.protocol import Buffers, Done, ServerHeaders
from bedplate_services.logging import get_logger
from bedplate_services.lookup_turns import LookupTurns
from bedplate_services.metrics import Metrics
from bedplate_services.searches import Query
from bedplate_services.shards.answering import RemoteAnswers, lookup_result, search_result
from bedplate_services.shards.fan_out import RemoteLookup, RemoteSearch
from bedplate_store.readers import LookupResult, SearchResult
from bedplate_store.shard_routing import RemoteSpace

_log = get_logger(__name__)
_HEADS_MAX = 4096
_HEAD_BYTES_MAX = 4096  # a filter may be long, and heads are remembered: 16 MiB of them at most
SEARCH_BYTES_MAX = 256 << 10
"""Reading that many bytes of queries copies them once; they are searched for in a thread, as many are."""
HITS_MAX = 1 << 16
"""Those of more are encoded in a thread, by the ordinary path."""
_STATUS = b"HTTP/1.1 200 OK\r\n"

Asked = NDArray[np.int64] | Query
Result = LookupResult | SearchResult
Remote = RemoteLookup | RemoteSearch


class FromNodes(NamedTuple):
    """What store nodes answered to a request, and the id by which they were told of it."""

    outcome: Remote | Exception
    request_id: bytes


class _Shape(NamedTuple):
    """All that the headers of an answer depend on; a tuple, because one is made for each request."""

    version: str
    snapshot: int
    dim: int
    dtype: str
    rows: int
    body_bytes: int
    shards: str | None


class Lane:
    """Answers what ``heads`` lets in. Belongs to the loop of its ``SpaceDirectory``.

    Args:
        remote: asks store nodes; None: there are none.
        body_bytes_max: larger bodies are left to the ordinary path.
        draining: once begun, all is left to the ordinary path, which closes connections.
    """

    def __init__(
        self,
        directory: SpaceDirectory,
        authenticator: Authenticator,
        metrics: Metrics,
        queue: SearchQueue,
        remote: RemoteAnswers | None = None,
        body_bytes_max: int = INLINE_BYTES,
        draining: Draining | None = None,
    ) -> None:
        self._directory = directory
        self._authenticator = authenticator
        self._metrics = metrics
        self._queue = queue
        self._remote = remote
        self._turns = LookupTurns()
        self._body_bytes_max = {
            "lookup": min(body_bytes_max, INLINE_BYTES),
            "search": min(body_bytes_max, SEARCH_BYTES_MAX),
        }
        self._draining = draining or Draining()
        self._asks: dict[bytes, Ask | None] = {}
        self._headers: dict[_Shape, bytes] = {}
        self._server_headers: ServerHeaders = ()
        self._server_bytes = b""

    def ask(self, head: bytes) -> Ask | None:
        """What a request head asks, if the lane may answer it; known heads cost a dictionary access."""
        if self._draining.begun or len(head) > _HEAD_BYTES_MAX:
            return None
        try:
            return self._asks[head]
        except KeyError:
            pass
        ask = read_head(head)
        if ask is not None and ask.body_bytes > self._body_bytes_max[ask.verb]:
            ask = None
        if ask is None or not ask.once:
            if len(self._asks) >= _HEADS_MAX:
                self._asks.clear()
            self._asks[head] = ask
        return ask

    def locate(self, ask: Ask) -> Located | None:
        """The reader that answers, if token and reader are at hand without waiting for anything."""
        if not self._authenticator.knows(ask.token):
            return None
        located = self._directory.at_hand(ask.reference, ask.space)
        if located is None or ask.verb == "lookup":
            return located
        if located.reader.key_type != "int64":
            return None  # such hits do not fit a raw answer
        if ask.parameters.by_key and isinstance(located.reader, RemoteSpace):
            return None  # store nodes are asked twice, and not together with others
        return located

    def read(self, ask: Ask, body: bytes, located: Located) -> Asked | None:
        """What a body asks for; None: too much for the lane. Raises what the ordinary path would raise."""
        if ask.verb == "lookup":
            _dtype(ask, located)
            return decode_keys_raw(body)
        query = searches.raw_query(body, ask.parameters, located.reader.dim)
        return query if len(query) * query.k <= HITS_MAX else None

    def begin(self, ask: Ask, asked: Asked, located: Located, done: Done) -> None:
        """Look up or search; ``done`` is called with the outcome, perhaps before this returns."""
        if isinstance(located.reader, RemoteSpace):
            assert self._remote is not None  # the directory gives no remote space without it
            request_id = _request_id(ask)

            def told(outcome: Remote | Exception) -> None:
                done(FromNodes(outcome, request_id))

            named = request_id.decode()
            if isinstance(asked, Query):
                self._remote.turns.search(located.reader, asked, named, told)
            else:
                self._remote.turns.lookup(located.reader, asked, _dtype(ask, located), named, told)
            return
        if not isinstance(asked, Query):
            self._turns.submit(located.here, asked, _dtype(ask, located), done)
            return
        reader, k, ef, recall, filter = located.here, asked.k, asked.ef, asked.recall, asked.filter
        if asked.keys is not None:
            self._queue.submit_by_key(reader, asked.keys, k, ef, done, recall=recall, filter=filter)
        else:
            assert asked.vectors is not None
            self._queue.submit(reader, asked.vectors, k, ef, done, recall=recall, filter=filter)

    def answer(
        self,
        ask: Ask,
        located: Located,
        outcome: Result | FromNodes | Exception,
        server_headers: ServerHeaders,
    ) -> Buffers | None:
        """The whole answer; None: the ordinary path is to give it."""
        if isinstance(outcome, FromNodes):
            return self._of_nodes(ask, located, outcome, server_headers)
        if isinstance(outcome, Exception):
            return None
        if isinstance(outcome, LookupResult):
            return self._vectors(ask, located, outcome, None, _request_id(ask), server_headers)
        return self._hits(ask, located, outcome, None, _request_id(ask), server_headers)

    def _of_nodes(
        self, ask: Ask, located: Located, told: FromNodes, server_headers: ServerHeaders
    ) -> Buffers | None:
        """That shards did not answer is told here: to ask them again would take as long once more."""
        found, request_id = told
        if isinstance(found, Remote):
            error = self._unanswered(found)
            if error is not None:
                return self._refusal(ask, error, request_id, server_headers)
            shards = shards_header(found.shards.answered, found.shards.of)
            if isinstance(found, RemoteLookup):
                return self._vectors(ask, located, lookup_result(found), shards, request_id, server_headers)
            return self._hits(ask, located, search_result(found), shards, request_id, server_headers)
        if isinstance(found, ShardsUnanswered):
            return self._refusal(ask, found, request_id, server_headers)
        return None

    def _unanswered(self, found: Remote) -> ShardsUnanswered | None:
        assert self._remote is not None
        try:
            self._remote.require(found, partial=False)
        except ShardsUnanswered as error:
            return error
        return None

    def _refusal(
        self, ask: Ask, error: BedplateError, request_id: bytes, server_headers: ServerHeaders
    ) -> Buffers:
        told = problems.response(error, {"type": "http", problems.REQUEST_ID: request_id.decode()})
        _log.error("request failed", path=ROUTES[ask.verb], request_id=request_id.decode(), exc_info=error)
        status = b"HTTP/1.1 %d %b\r\n" % (told.status_code, HTTPStatus(told.status_code).phrase.encode())
        headers = _lines([*server_headers, *told.raw_headers, (b"x-request-id", request_id)])
        return status + headers + b"\r\n", bytes(told.body)

    def _vectors(
        self,
        ask: Ask,
        located: Located,
        result: LookupResult,
        shards: str | None,
        request_id: bytes,
        server_headers: ServerHeaders,
    ) -> Buffers:
        reader = located.reader
        dtype = _dtype(ask, located)
        vectors, found = lookup_parts_raw(result.found, result.vectors, dtype)
        rows = len(result.found)
        shape = _Shape(
            located.version,
            result.snapshot,
            reader.dim,
            dtype,
            rows,
            vectors.nbytes + found.nbytes,
            shards,
        )
        return self._head(shape, request_id, server_headers), vectors, found

    def _hits(
        self,
        ask: Ask,
        located: Located,
        result: SearchResult,
        shards: str | None,
        request_id: bytes,
        server_headers: ServerHeaders,
    ) -> Buffers:
        body = searches.raw_hits(result, ask.parameters.by_key)
        reader = located.reader
        shape = _Shape(
            located.version,
            result.snapshot,
            reader.dim,
            reader.storage.answers,
            len(result.scores),
            len(body),
            shards,
        )
        return self._head(shape, request_id, server_headers), body

    def count(self, ask: Ask, outcome: Result | FromNodes, seconds: float) -> None:
        """Tell the metrics of an answer."""
        route = ROUTES[ask.verb]
        found = outcome.outcome if isinstance(outcome, FromNodes) else outcome
        if isinstance(found, Exception) or (isinstance(found, Remote) and found.shards.missing):
            self._metrics.request("POST", route, problems.status_of(ShardsUnanswered("")), seconds)
            return
        rows = len(found.found)
        self._metrics.request("POST", route, 200, seconds)
        self._metrics.rows(route, rows, rows - int(np.count_nonzero(found.found)))

    def _head(self, shape: _Shape, request_id: bytes, server_headers: ServerHeaders) -> bytes:
        if server_headers is not self._server_headers:  # the server makes new ones when its date changes
            self._server_headers, self._server_bytes = server_headers, _lines(server_headers)
        ours = self._headers.get(shape)
        if ours is None:
            if len(self._headers) >= _HEADS_MAX:
                self._headers.clear()
            ours = self._headers[shape] = _lines(headers_of(media=RAW, **shape._asdict()))
        return b"%b%b%bx-request-id: %b\r\n\r\n" % (_STATUS, self._server_bytes, ours, request_id)


def _request_id(ask: Ask) -> bytes:
    return ask.request_id or new_request_id().encode()


def _dtype(ask: Ask, located: Located) -> VectorDtype:
    return answer_dtype(ask.accept, located.reader.storage.answers)


def _lines(headers: ServerHeaders) -> bytes:
    return b"".join(b"%b: %b\r\n" % pair for pair in headers)
