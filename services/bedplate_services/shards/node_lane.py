"""A store node's fast lane: what the API asks is answered by the server's protocol, without an ASGI task.

See :mod:`bedplate_services.lane`. Here, too, only the ordinary path (:mod:`bedplate_services.shards.node`)
knows errors: a state that is not here, a wrong secret, a body that cannot be read are left to it.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from typing import Literal
from urllib.parse import parse_qsl

import numpy as np
from numpy.typing import NDArray

from bedplate.codecs import RAW, VectorDtype, decode_keys_raw, decode_vectors_raw, lookup_parts_raw
from bedplate.errors import BedplateError
from bedplate_services.coalescing import SearchQueue
from bedplate_services.draining import Draining
from bedplate_services.hot_path import INLINE_BYTES
from bedplate_services.lane.heads import parse_head
from bedplate_services.lane.protocol import Buffers, Done, ServerHeaders
from bedplate_services.lookup_turns import LookupTurns
from bedplate_services.metrics import Metrics
from bedplate_services.shards.exchange import (
    PREFIX,
    REQUEST_ID,
    SearchSetting,
    ShardAsk,
    dtype_of,
    encode_hits,
)
from bedplate_store.readers import LookupResult, SearchResult
from bedplate_store.shard_nodes import ShardNode
from bedplate_store.shard_views import ShardGroup

_HEADS_MAX = 4096
_HEAD_BYTES_MAX = 4096
_SEARCH_BYTES_MAX = 256 << 10
_END_OF_HEAD = b"\r\n\r\n"
_REQUESTS = b"\r\n%b: " % REQUEST_ID
_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: %b\r\ncontent-length: %d\r\n\r\n"
_VERBS: dict[str, Literal["lookup", "search"]] = {f"{PREFIX}lookup": "lookup", f"{PREFIX}search": "search"}


@dataclass(frozen=True, slots=True)
class NodeAsk:
    """What a request head of the API asks; ``setting`` of a search alone."""

    verb: Literal["lookup", "search"]
    shards: ShardAsk
    body_bytes: int
    dtype: VectorDtype
    setting: SearchSetting | None


class NodeLane:
    """Belongs to one event loop.

    Args:
        secret: must come with every request.
        draining: once begun, all is left to the ordinary path, which closes connections.
    """

    def __init__(
        self, node: ShardNode, secret: str, metrics: Metrics, queue: SearchQueue, draining: Draining
    ) -> None:
        self._node = node
        self._authorization = f"Bearer {secret}".encode()
        self._metrics = metrics
        self._queue = queue
        self._draining = draining
        self._turns = LookupTurns()
        self._asks: dict[bytes, NodeAsk | None] = {}

    def ask(self, head: bytes) -> NodeAsk | None:
        """Known heads cost a dictionary access. A state's heads differ in the length of the body, and in
        whose requests they are for, which only errors tell.
        """
        head, _, requests = head.partition(_REQUESTS)
        if requests:
            if requests.find(b"\r\n") != len(requests) - len(_END_OF_HEAD):
                return None  # it is not the last header
            head += _END_OF_HEAD
        if self._draining.begun or len(head) > _HEAD_BYTES_MAX:
            return None
        try:
            return self._asks[head]
        except KeyError:
            pass
        if len(self._asks) >= _HEADS_MAX:
            self._asks.clear()
        ask = self._asks[head] = self._read_head(head)
        return ask

    def _read_head(self, head: bytes) -> NodeAsk | None:
        parsed = parse_head(head)
        if parsed is None:
            return None
        path, _, text = parsed.url.decode("latin-1").partition("?")
        verb, length = _VERBS.get(path), int(parsed.headers.get(b"content-length", b"0"))
        given = parsed.headers.get(b"authorization", b"")
        if verb is None or length == 0 or not hmac.compare_digest(given, self._authorization):
            return None
        if length > (INLINE_BYTES if verb == "lookup" else _SEARCH_BYTES_MAX):
            return None
        query = dict(parse_qsl(text))
        try:
            setting = SearchSetting.parse(query) if verb == "search" else None
            return NodeAsk(verb, ShardAsk.parse(query), length, dtype_of(query), setting)
        except BedplateError:
            return None

    def locate(self, ask: NodeAsk) -> ShardGroup | None:
        """The shards at the state that is asked for, if they are here."""
        shards = ask.shards
        try:
            group = self._node.at(shards.space, shards.snapshot, shards.sequence, shards.shards)
        except Exception:  # noqa: BLE001  # whatever it is, the ordinary path meets it again and tells the API
            return None
        return group if group.key_type == "int64" else None

    def read(self, ask: NodeAsk, body: bytes, located: ShardGroup) -> NDArray[np.int64] | NDArray[np.float32]:
        """Keys or vectors."""
        return decode_keys_raw(body) if ask.setting is None else decode_vectors_raw(body, located.dim)

    def begin(
        self,
        ask: NodeAsk,
        asked: NDArray[np.int64] | NDArray[np.float32],
        located: ShardGroup,
        done: Done,
    ) -> None:
        setting = ask.setting
        if setting is None:
            self._turns.submit(located, asked.view(np.int64), ask.dtype, done)
            return
        self._queue.submit(
            located,
            asked.view(np.float32),
            setting.k,
            setting.ef,
            done,
            recall=setting.recall,
            filter=setting.filter,
        )

    def answer(
        self,
        ask: NodeAsk,
        located: ShardGroup,
        outcome: LookupResult | SearchResult | Exception,
        server_headers: ServerHeaders,
    ) -> Buffers | None:
        if isinstance(outcome, Exception):
            return None
        if isinstance(outcome, LookupResult):
            vectors, found = lookup_parts_raw(outcome.found, outcome.vectors)
            return _HEAD % (RAW.encode(), vectors.nbytes + found.nbytes), vectors, found
        body = encode_hits(outcome.keys, outcome.scores)
        return _HEAD % (RAW.encode(), len(body)), body

    def count(self, ask: NodeAsk, outcome: LookupResult | SearchResult, seconds: float) -> None:
        self._metrics.request("POST", f"{PREFIX}{ask.verb}", 200, seconds)
