"""Asking store nodes: states that change under a request, nodes that do not answer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import numpy as np
import pytest
from structlog.testing import capture_logs

from bedplate.codecs import decode_keys_raw, encode_lookup_raw, encode_search_answer_raw
from bedplate.errors import InvalidRequest, ShardsUnanswered
from bedplate_services.searches import Query
from bedplate_services.shards.connections import NodeAnswer, NodeFailed
from bedplate_services.shards.exchange import MISSING, PASSED
from bedplate_services.shards.fan_out import FanOut
from bedplate_store.shard_ranges import ShardRanges
from bedplate_store.shard_routing import RemoteSpace, Route
from bedplate_store.spaces import SpaceKey

Behave = Callable[[dict[str, str]], NodeAnswer | None]
DIM = 2


def space(sequence: int = 5, *urls: str | None) -> RemoteSpace:
    routes = tuple(Route(None if url is None else f"node-{url}", url) for url in urls or ("a", "b", "a"))
    return RemoteSpace(
        SpaceKey("core", 7, "item"), DIM, "float32", "int64", 3, sequence, ShardRanges((10, 20)), routes
    )


class Nodes:
    """Answers lookups with vectors of the key, searches with the node's own keys; keeps what was asked."""

    def __init__(self, **behave: Behave) -> None:
        self.behave = behave
        self.asked: list[tuple[str, dict[str, str]]] = []
        self.requests: list[tuple[str, ...]] = []

    async def post(self, url: str, target: str, body: bytes, requests: Sequence[str]) -> NodeAnswer:
        query = dict(parse_qsl(urlsplit(target).query))
        self.asked.append((url, query))
        self.requests.append(tuple(requests))
        if url in self.behave:
            refused = self.behave[url](query)
            if refused is not None:
                return refused
        if "/search" in target:
            k = int(query["k"])
            keys = np.array([[ord(url) * 10 + number for number in range(k)]], np.int64)
            scores = np.array([[-float(number) for number in range(k)]], np.float32)
            return NodeAnswer(200, encode_search_answer_raw(keys, scores))
        keys = decode_keys_raw(body)
        vectors = np.repeat(keys.astype(np.float32)[:, None], DIM, axis=1)
        return NodeAnswer(200, encode_lookup_raw(keys % 2 == 0, vectors))


class Routing:
    def __init__(self, found: RemoteSpace | None = None) -> None:
        self.found = found
        self.asked = 0

    def find(self, _: SpaceKey) -> RemoteSpace | None:
        self.asked += 1
        return self.found


def fan_out(nodes: Nodes, routing: Routing | None = None, deadline_seconds: float = 5.0) -> FanOut:
    made: Any = FanOut(routing or Routing(), nodes, deadline_seconds)  # type: ignore[arg-type]  # fakes
    return made


def lookup(fan: FanOut, state: RemoteSpace, keys: list[int], partial: bool = False) -> Any:
    async def asked() -> Any:
        found = await fan.lookup(state, np.array(keys), "float32")
        fan.require(found.state, found.shards, partial=partial)
        return found

    return asyncio.run(asked())


def test_a_lookup_asks_each_node_once_for_its_keys_and_keeps_their_order() -> None:
    nodes = Nodes()
    found = lookup(fan_out(nodes), space(), [24, 2, 12, 3])
    assert found.vectors[:, 0].tolist() == [24.0, 2.0, 12.0, 3.0]
    assert found.found.tolist() == [True, True, True, False]
    assert (found.shards.answered, found.shards.of) == (3, 3)
    assert sorted((url, query["shards"], query["sequence"]) for url, query in nodes.asked) == [
        ("a", "0,2", "5"),
        ("b", "1", "5"),
    ]
    nodes.asked.clear()
    found = lookup(fan_out(nodes), space(), [12])
    assert [url for url, _ in nodes.asked] == ["b"]
    assert found.shards.of == 1


def test_a_node_that_is_ahead_makes_all_be_asked_again_at_its_sequence() -> None:
    def ahead(query: dict[str, str]) -> Any:
        return NodeAnswer(PASSED, b"8") if query["sequence"] == "5" else None

    nodes = Nodes(a=ahead)
    found = lookup(fan_out(nodes), space(), [2, 12])
    assert found.state.sequence == 8
    assert [query["sequence"] for _, query in nodes.asked] == ["5", "5", "8", "8"]


def test_nodes_that_never_agree_are_an_error() -> None:
    nodes = Nodes(a=lambda query: NodeAnswer(PASSED, str(int(query["sequence"]) + 1).encode()))
    with pytest.raises(ShardsUnanswered, match="do not agree"):
        lookup(fan_out(nodes), space(), [2], partial=True)


def test_a_shard_that_moved_is_looked_for_once() -> None:
    nodes = Nodes(a=lambda _: NodeAnswer(MISSING, b""))
    routing = Routing(space(5, "c", "b", "c"))
    found = lookup(fan_out(nodes, routing), space(), [2, 12])
    assert found.found.all()
    assert routing.asked == 1
    lost = Routing(space())
    with pytest.raises(ShardsUnanswered, match="missing: 0"):
        lookup(fan_out(nodes, lost), space(), [2, 12])
    assert lost.asked == 1


def fails(_: dict[str, str]) -> NodeAnswer:
    raise NodeFailed("refused")


def test_unanswered_shards_are_an_error_unless_partial_answers_are_allowed() -> None:
    nodes = Nodes(b=fails)
    with pytest.raises(ShardsUnanswered, match=r"2 of 3 .* missing: 1 \(with node-b\)") as raised:
        lookup(fan_out(nodes), space(), [2, 12, 24])
    assert raised.value.context == {"shards": {"answered": 2, "of": 3}, "missing": [1]}
    found = lookup(fan_out(nodes), space(), [2, 12, 24], partial=True)
    assert found.answered.tolist() == [True, False, True]
    assert found.found.tolist() == [True, False, True]
    with pytest.raises(ShardsUnanswered, match="0 of 1"):
        lookup(fan_out(nodes), space(), [12], partial=True)
    nobody = space(5, "a", None, "a")
    assert lookup(fan_out(Nodes()), nobody, [2, 12], partial=True).answered.tolist() == [True, False]


def test_the_log_names_requests_whose_node_failed() -> None:
    with capture_logs() as lines:
        asyncio.run(fan_out(Nodes(b=fails)).lookup(space(), np.array([2, 12]), "float32", ["one", "other"]))
    assert [(line["event"], line["url"], line["request_id"]) for line in lines] == [
        ("store node cannot be reached", "b", "one,other")
    ]


def test_a_silent_node_is_not_waited_for_after_the_deadline() -> None:
    class Silent(Nodes):
        def post(self, url: str, target: str, body: bytes, requests: Sequence[str]) -> Any:
            silent: asyncio.Future[NodeAnswer] = asyncio.get_running_loop().create_future()
            return silent if url == "b" else super().post(url, target, body, requests)

    found = lookup(fan_out(Silent(), deadline_seconds=0.01), space(), [2, 12], partial=True)
    assert found.answered.tolist() == [True, False]


def test_a_search_merges_the_best_of_all_nodes() -> None:
    query = Query(np.zeros((1, DIM), np.float32), None, 3, None)
    found = asyncio.run(fan_out(Nodes()).search(space(), query))
    assert np.asarray(found.keys).tolist() == [[970, 980, 971]]
    assert found.scores.tolist() == [[0.0, 0.0, -1.0]]
    assert (found.shards.answered, found.shards.of) == (3, 3)


def test_a_search_by_key_leaves_the_key_itself_out_and_unknown_keys_empty() -> None:
    query = Query(None, np.array([970]), 2, None)
    state = space(5, "a", "a", "a")
    found = asyncio.run(fan_out(Nodes()).search(state, query))
    assert np.asarray(found.keys).tolist() == [[971, 972]]
    unknown = Query(None, np.array([3]), 2, None)
    found = asyncio.run(fan_out(Nodes()).search(state, unknown))
    assert np.asarray(found.keys).tolist() == [[-1, -1]]
    assert found.found.tolist() == [False]


def test_what_a_node_refuses_is_refused_with_its_words() -> None:
    problem = b'{"code": "invalid_request", "detail": "there is no attribute colour"}'
    nodes = Nodes(a=lambda _: NodeAnswer(422, problem))
    query = Query(np.zeros((1, DIM), np.float32), None, 3, None)
    with pytest.raises(InvalidRequest, match="no attribute colour"):
        asyncio.run(fan_out(nodes).search(space(), query))
