"""What a store node's fast lane takes, and what it leaves to the ordinary path."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from bedplate.codecs import decode_lookup_raw, decode_search_answer_raw, encode_keys_raw, encode_vectors_raw
from bedplate_services.coalescing import SearchQueue
from bedplate_services.draining import Draining
from bedplate_services.metrics import NullMetrics
from bedplate_services.shards.exchange import REQUESTS_MAX, SearchSetting, ShardAsk
from bedplate_services.shards.node_lane import NodeLane
from bedplate_store.readers import LookupResult, SearchResult
from bedplate_store.shard_views import SequencePassed, ShardMissing
from bedplate_store.spaces import SpaceKey

ASK = ShardAsk(SpaceKey("core", 7, "item"), 3, 12, (0, 4))
KEYS = encode_keys_raw(np.array([5, 6], np.int64))
VECTORS = encode_vectors_raw(np.ones((2, 4), np.float32))
SETTING = SearchSetting(3, 64, 0.9, None)


@dataclass
class Group:
    """Answers with vectors of the key, and keys 0, 1, 2 to a search."""

    key_type: str = "int64"
    dim: int = 4
    asked: list[Any] = field(default_factory=list)

    def lookup(self, keys: Any, dtype: Any = None) -> LookupResult:
        self.asked.append((keys.tolist(), dtype))
        return LookupResult(keys % 2 == 0, np.repeat(keys[:, None], 4, axis=1).astype(dtype), 3, 12)

    def search(self, vectors: Any, k: int, ef: Any, recall: Any, filter: Any) -> SearchResult:
        self.asked.append((len(vectors), k, ef, recall, filter))
        keys = np.tile(np.arange(k), (len(vectors), 1))
        return SearchResult(keys, -keys.astype(np.float32), np.ones(len(vectors), np.bool_), 3, 12)

    __hash__ = object.__hash__


@dataclass
class Node:
    found: Any

    def at(self, key: SpaceKey, snapshot: int, sequence: int, shards: tuple[int, ...]) -> Any:
        assert ShardAsk(key, snapshot, sequence, shards) == ASK
        if isinstance(self.found, Exception):
            raise self.found
        return self.found


def lane(found: Any = None) -> NodeLane:
    made: Any = Node(found)
    return NodeLane(made, "secret", NullMetrics(), SearchQueue(), Draining())


def head(target: str, body: bytes, secret: str = "secret", method: str = "POST", more: str = "") -> bytes:
    return (
        f"{method} {target} HTTP/1.1\r\nhost: node\r\nauthorization: Bearer {secret}\r\n"
        f"content-type: application/octet-stream\r\ncontent-length: {len(body)}\r\n{more}\r\n"
    ).encode()


def answered(target: str, body: bytes, group: Group) -> bytes:
    """The body of the lane's answer."""

    async def main() -> bytes:
        taken = lane(group)
        ask = taken.ask(head(target, body))
        assert ask is not None
        assert ask.body_bytes == len(body)
        located: Any = taken.locate(ask)
        assert located is group
        outcome = asyncio.get_running_loop().create_future()
        taken.begin(ask, taken.read(ask, body, located), located, outcome.set_result)
        answer = taken.answer(ask, located, await outcome, ())
        assert answer is not None
        text, _, content = b"".join(answer).partition(b"\r\n\r\n")
        assert text.startswith(b"HTTP/1.1 200 OK\r\n")
        assert f"content-length: {len(content)}".encode() in text
        return content

    return asyncio.run(main())


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_lookups_are_answered(dtype: str) -> None:
    group = Group()
    content = answered(ASK.target("lookup", f"&dtype={dtype}"), KEYS, group)
    found, vectors = decode_lookup_raw(content, rows=2, dim=4, dtype=dtype)
    assert found.tolist() == [False, True]
    assert vectors[:, 0].tolist() == [5.0, 6.0]
    assert group.asked == [([5, 6], dtype)]


def test_searches_are_answered_as_they_are_asked_for() -> None:
    group = Group()
    content = answered(ASK.target("search", SETTING.text()), VECTORS, group)
    keys, _ = decode_search_answer_raw(content, queries=2, k=3)
    assert keys.tolist() == [[0, 1, 2], [0, 1, 2]]
    assert group.asked == [(2, 3, 64, 0.9, None)]


LOOKUP = ASK.target("lookup", "&dtype=float32")


@pytest.mark.parametrize(
    "request_head",
    [
        head(LOOKUP, KEYS, secret="other"),
        head(LOOKUP, KEYS, secret=""),
        head(LOOKUP, KEYS, method="GET"),
        head(LOOKUP, b""),
        head(LOOKUP, bytes(17 << 10)),
        head(LOOKUP, KEYS, more="transfer-encoding: chunked\r\n"),
        head(LOOKUP, KEYS, more="connection: close\r\n"),
        head("/internal/shards/lookup", KEYS),
        head(ASK.target("search"), VECTORS),
        head("/internal/shards/other", KEYS),
        head("/metrics", KEYS),
    ],
)
def test_what_the_ordinary_path_is_to_answer(request_head: bytes) -> None:
    taken = lane(Group())
    assert taken.ask(request_head) is None
    assert taken.ask(request_head) is None


def test_heads_that_differ_in_the_ids_of_their_requests_alone_are_read_once() -> None:
    taken = lane(Group())
    plain = taken.ask(head(LOOKUP, KEYS))
    assert plain is not None
    for ids in ("r-1", "r-1,r-2", ",".join(["i" * 64] * REQUESTS_MAX)):
        assert taken.ask(head(LOOKUP, KEYS, more=f"x-request-id: {ids}\r\n")) is plain


def test_a_head_with_more_behind_the_ids_is_left_to_the_ordinary_path() -> None:
    more = "x-request-id: r-1\r\ntransfer-encoding: chunked\r\n"
    taken = lane(Group())
    assert taken.ask(head(LOOKUP, KEYS, more=more)) is None
    assert taken.ask(head(LOOKUP, KEYS, more="x-request-id: r-1\r\nx-request-id: r-2\r\n")) is None


@pytest.mark.parametrize(
    "found", [ShardMissing("not here"), SequencePassed(13), RuntimeError("broken"), Group("string")]
)
def test_a_state_that_is_not_here_is_told_by_the_ordinary_path(found: Any) -> None:
    taken = lane(found)
    ask = taken.ask(head(LOOKUP, KEYS))
    assert ask is not None
    assert taken.locate(ask) is None


def test_a_node_that_ends_leaves_all_to_the_ordinary_path() -> None:
    draining = Draining()
    node: Any = Node(Group())
    taken = NodeLane(node, "secret", NullMetrics(), SearchQueue(), draining)
    assert taken.ask(head(LOOKUP, KEYS)) is not None
    draining.begin()
    assert taken.ask(head(LOOKUP, KEYS)) is None


def test_an_error_is_told_by_the_ordinary_path() -> None:
    taken = lane(Group())
    ask: Any = taken.ask(head(LOOKUP, KEYS))
    located: Any = Group()
    assert taken.answer(ask, located, ValueError("broken"), ()) is None
