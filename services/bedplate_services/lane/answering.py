"""How the fast lane answers: the same rooms as the ordinary path, without joining what is sent anyway."""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
from bedplate_services import searches
from bedplate_services.answers import headers_of
from bedplate_services.auth import Authenticator
from bedplate_services.coalescing import SearchQueue
from bedplate_services.directory import Located, SpaceDirectory
from bedplate_services.draining import Draining
from bedplate_services.edge import new_request_id
from bedplate_services.hot_path import INLINE_BYTES, ROUTES
from bedplate_services.lane.heads import Ask, read_head
from bedplate_services.lookup_turns import LookupTurns
from bedplate_services.metrics import Metrics
from bedplate_services.searches import Query
from bedplate_store.readers import LookupResult, SearchResult
from bedplate_store.shard_routing import RemoteSpace

STATE = "bedplate_lane"
"""Where the application leaves its lane in the lifespan's state, for the server's protocol to find."""
_HEADS_MAX = 4096
_HEAD_BYTES_MAX = 4096  # a filter may be long, and heads are remembered: 16 MiB of them at most
SEARCH_BYTES_MAX = 256 << 10
"""Reading that many bytes of queries copies them once; they are searched for in a thread, as many are."""
HITS_MAX = 1 << 16
"""Those of more are encoded in a thread, by the ordinary path."""
_STATUS = b"HTTP/1.1 200 OK\r\n"

Asked = NDArray[np.int64] | Query
Result = LookupResult | SearchResult
Done = Callable[[Result | Exception], None]
Buffers = Sequence[bytes | memoryview]
ServerHeaders = Sequence[tuple[bytes, bytes]]


class _Shape(NamedTuple):
    """All that the headers of an answer depend on; a tuple, because one is made for each request."""

    version: str
    snapshot: int
    dim: int
    dtype: str
    rows: int
    body_bytes: int


class Lane:
    """Answers what ``heads`` lets in. Belongs to the loop of its ``SpaceDirectory``.

    Args:
        body_bytes_max: larger bodies are left to the ordinary path.
        draining: once begun, all is left to the ordinary path, which closes connections.
    """

    def __init__(
        self,
        directory: SpaceDirectory,
        authenticator: Authenticator,
        metrics: Metrics,
        queue: SearchQueue,
        body_bytes_max: int = INLINE_BYTES,
        draining: Draining | None = None,
    ) -> None:
        self._directory = directory
        self._authenticator = authenticator
        self._metrics = metrics
        self._queue = queue
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
        if located is not None and isinstance(located.reader, RemoteSpace):
            return None  # store nodes are asked, and waited for
        if located is not None and ask.verb == "search" and located.reader.key_type != "int64":
            return None  # such hits do not fit a raw answer
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
        if not isinstance(asked, Query):
            self._turns.submit(located.here, asked, _dtype(ask, located), done)
            return
        reader, k, ef, recall, filter = located.here, asked.k, asked.ef, asked.recall, asked.filter
        if asked.keys is not None:
            self._queue.submit_by_key(reader, asked.keys, k, ef, done, recall=recall, filter=filter)
        else:
            assert asked.vectors is not None
            self._queue.submit(reader, asked.vectors, k, ef, done, recall=recall, filter=filter)

    def answer(self, ask: Ask, located: Located, result: Result, server_headers: ServerHeaders) -> Buffers:
        """The whole answer. Raises what the ordinary path would raise."""
        if isinstance(result, LookupResult):
            return self._vectors(ask, located, result, server_headers)
        return self._hits(ask, located, result, server_headers)

    def _vectors(
        self, ask: Ask, located: Located, result: LookupResult, server_headers: ServerHeaders
    ) -> Buffers:
        reader = located.reader
        dtype = _dtype(ask, located)
        vectors, found = lookup_parts_raw(result.found, result.vectors, dtype)
        rows = len(result.found)
        shape = _Shape(
            located.version, result.snapshot, reader.dim, dtype, rows, vectors.nbytes + found.nbytes
        )
        return self._head(ask, shape, server_headers), vectors, found

    def _hits(
        self, ask: Ask, located: Located, result: SearchResult, server_headers: ServerHeaders
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
        )
        return self._head(ask, shape, server_headers), body

    def count(self, ask: Ask, result: Result, seconds: float) -> None:
        """Tell the metrics of an answer."""
        route, rows = ROUTES[ask.verb], len(result.found)
        self._metrics.request("POST", route, 200, seconds)
        self._metrics.rows(route, rows, rows - int(np.count_nonzero(result.found)))

    def _head(self, ask: Ask, shape: _Shape, server_headers: ServerHeaders) -> bytes:
        if server_headers is not self._server_headers:  # the server makes new ones when its date changes
            self._server_headers, self._server_bytes = server_headers, _lines(server_headers)
        ours = self._headers.get(shape)
        if ours is None:
            if len(self._headers) >= _HEADS_MAX:
                self._headers.clear()
            ours = self._headers[shape] = _lines(headers_of(media=RAW, **shape._asdict()))
        request_id = ask.request_id or new_request_id().encode()
        return b"%b%b%bx-request-id: %b\r\n\r\n" % (_STATUS, self._server_bytes, ours, request_id)


def _dtype(ask: Ask, located: Located) -> VectorDtype:
    return answer_dtype(ask.accept, located.reader.storage.answers)


def _lines(headers: ServerHeaders) -> bytes:
    return b"".join(b"%b: %b\r\n" % pair for pair in headers)
