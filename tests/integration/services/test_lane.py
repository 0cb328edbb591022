"""The fast lane answers byte for byte as the ordinary path does, or leaves the request to it.

These tests hold what the lane needs of uvicorn; pyproject.toml names the range of versions they passed on.
"""

from __future__ import annotations

import itertools
import json
import re
import threading
import time
import tomllib
from collections.abc import Iterator
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pytest
from packaging.requirements import Requirement
from tests.integration.places import FILES

from bedplate.codecs import (
    ARROW,
    RAW,
    encode_keys_arrow,
    encode_keys_raw,
    encode_upsert_arrow,
    encode_vectors_raw,
)
from bedplate_services.api import Api, create_app
from bedplate_services.metrics import PrometheusMetrics

from .conftest import World
from .lane_servers import Answer, Connection, Servers, serve

LOOKUP, SEARCH = "/v1/spaces/core@1/item/lookup", "/v1/spaces/core@1/item/search"
KEYS = np.array([10, 20, 30, 40], np.int64)
ASKED = encode_keys_raw(np.array([30, 99, 10], np.int64))
ASKED_ALL = encode_keys_raw(KEYS[:3])
QUERY = encode_vectors_raw(np.array([[3, 2, 1, 0]], np.float32))
NAN = encode_vectors_raw(np.array([[np.nan, 2, 1, 0]], np.float32))
FILTER = quote(json.dumps({"attribute": "year", "at_least": 1990}))
LONG_FILTER = quote(json.dumps({"attribute": "year", "any_of": list(range(1000, 2000))}))
_VARIES = re.compile(rb'^(date|x-request-id): .*$|"request_id":"[^"]*"')


@pytest.fixture(scope="module")
def engines() -> str:
    """How bytes come over a socket has nothing to do with where the rows lie."""
    return FILES


@pytest.fixture(scope="module")
def filled(shared_world: World) -> World:
    shared_world.publish()
    shared_world.move("production", 1)
    body = encode_upsert_arrow(KEYS, np.eye(4, dtype=np.float32), {"year": [1980, 1990, 2000, 2010]})
    shared_world.ok("POST", "/v1/spaces/core@1/item/upsert", content=body, headers={"content-type": ARROW})
    shared_world.upsert("core@1/user", ["u1"], np.ones((1, 4), np.float16))
    return shared_world


@pytest.fixture(scope="module")
def servers(filled: World) -> Iterator[Servers]:
    """What was found once stays at hand: how long a machine takes between two requests decides nothing."""
    with pytest.MonkeyPatch.context() as patch, serve(filled.api) as running:
        patch.setattr(filled.platform.directory, "_stale_seconds", 3600.0)
        patch.setattr(filled.platform.authenticator, "_ttl_seconds", 3600.0)
        yield running


def request(
    world: World,
    path: str,
    body: bytes,
    *,
    token: str | None = None,
    length: int | None = None,
    **headers: str,
) -> bytes:
    """A request of raw bytes that asks for raw bytes; ``headers`` replace its own, '' leaves one out."""
    secret = world.secrets["feed-team"] if token is None else token
    named = {
        "host": "test",
        "content-type": RAW,
        "accept": RAW,
        "authorization": f"Bearer {secret}",
        "content-length": str(len(body) if length is None else length),
        **{name.replace("_", "-"): value for name, value in headers.items()},
    }
    method = named.pop("method", "POST")
    lines = [f"{method} {path} HTTP/{named.pop('http', '1.1')}"]
    lines += [f"{name}: {value}" for name, value in named.items() if value]
    return "\r\n".join([*lines, "", ""]).encode() + body


def ask(port: int, *wires: bytes) -> list[Answer]:
    with Connection(port) as connection:
        return [(connection.send(wire), connection.answer())[1] for wire in wires]


def comparable(answer: Answer) -> Answer:
    return Answer([_VARIES.sub(b"", line) for line in answer.head], _VARIES.sub(b"", answer.body))


def both(servers: Servers, wire: bytes) -> tuple[Answer, int]:
    """The answer, the same of both servers, and how many of two equal requests the lane took."""
    (plain,) = ask(servers.plain, wire)
    before = servers.taken
    answers = ask(servers.lane, wire, wire)
    for answer in answers:
        assert comparable(answer) == comparable(plain)
    return answers[0], servers.taken - before


GOOD = {
    "lookup": (LOOKUP, ASKED, {}),
    "lookup by alias": ("/v1/spaces/core@production/item/lookup", ASKED, {}),
    "lookup in float16": (LOOKUP, ASKED, {"accept": f"{RAW};dtype=float16"}),
    "lookup with an id": (LOOKUP, ASKED, {"x_request_id": "abc-1"}),
    "lookup with a bad id": (LOOKUP, ASKED, {"x_request_id": "a b"}),
    "lookup with further headers": (LOOKUP, ASKED, {"traceparent": "00-1-2-3", "accept_encoding": "gzip"}),
    "search": (f"{SEARCH}?k=2", QUERY, {}),
    "search with an effort": (f"{SEARCH}?k=6&ef=64", QUERY + QUERY, {}),
    "search with a recall": (f"{SEARCH}?k=2&recall=0.95", QUERY, {}),
    "search with a filter": (f"{SEARCH}?k=4&filter={FILTER}", QUERY, {}),
    "search without parameters": (SEARCH, QUERY, {}),
    "search by vector": (f"{SEARCH}?k=2&by=vector&dim=4", QUERY, {}),
    "search by key": (f"{SEARCH}?k=2&by=key", ASKED, {}),
    "search by keys that all exist": (f"{SEARCH}?k=3&by=key", ASKED_ALL, {}),
    "search by key with a filter": (f"{SEARCH}?k=2&by=key&filter={FILTER}", ASKED, {}),
    "search for many": (f"{SEARCH}?k=1", 1100 * QUERY, {}),
}


@pytest.mark.parametrize("name", GOOD)
def test_the_lane_answers_as_the_ordinary_path(filled: World, servers: Servers, name: str) -> None:
    path, body, headers = GOOD[name]
    wire = request(filled, path, body, **headers)
    ask(servers.lane, wire)  # the reader is opened and the token asked for
    answer, taken = both(servers, wire)
    assert answer.status == 200
    assert taken == 2


LEFT = {
    "json": (LOOKUP, json.dumps({"keys": [10]}).encode(), {"content_type": "application/json"}, 200),
    "arrow": (LOOKUP, encode_keys_arrow(KEYS), {"content_type": ARROW}, 200),
    "answer as json": (LOOKUP, ASKED, {"accept": "application/json"}, 200),
    "large": (LOOKUP, encode_keys_raw(np.arange(4000)), {}, 200),
    "closing": (LOOKUP, ASKED, {"connection": "close"}, 200),
    "chunked": (LOOKUP, b"18\r\n" + ASKED + b"\r\n0\r\n\r\n", {"transfer_encoding": "chunked"}, 200),
    "other encoding of the path": ("/v1/spaces/core%401/item/lookup", ASKED, {}, 200),
    "the token of a write": (LOOKUP, ASKED, {"x_bedplate_after": "nothing"}, 422),
    "no token": (LOOKUP, ASKED, {"authorization": ""}, 401),
    "wrong token": (LOOKUP, ASKED, {"authorization": "Bearer nobody"}, 401),
    "wrong scheme": (LOOKUP, ASKED, {"authorization": "Basic abc"}, 401),
    "empty": (LOOKUP, b"", {}, 422),
    "odd length": (LOOKUP, ASKED[:-1], {}, 422),
    "no such space": ("/v1/spaces/core@1/nothing/lookup", ASKED, {}, 404),
    "no such alias": ("/v1/spaces/core@nobody/item/lookup", ASKED, {}, 404),
    "not ready": ("/v1/spaces/core@1/tae/lookup", ASKED, {}, 409),
    "another type of key": ("/v1/spaces/core@1/user/lookup", ASKED, {}, 422),
    "a dtype that is none": (LOOKUP, ASKED, {"accept": f"{RAW};dtype=int8"}, 406),
    "not acceptable": (LOOKUP, ASKED, {"accept": "text/html"}, 406),
    "unsupported": (LOOKUP, ASKED, {"content_type": "text/plain"}, 415),
    "compressed": (LOOKUP, ASKED, {"content_encoding": "gzip"}, 415),
    "another method": (LOOKUP, ASKED, {"method": "PUT"}, 405),
    "search of another dimension": (SEARCH, QUERY[:-4], {}, 422),
    "search not a number": (SEARCH, NAN, {}, 422),
    "search of string keys, raw": ("/v1/spaces/core@1/user/search", QUERY, {}, 406),
    "k too large": (f"{SEARCH}?k=100000", QUERY, {}, 422),
    "recall above one": (f"{SEARCH}?recall=2", QUERY, {}, 422),
    "filter of no attribute": (f"{SEARCH}?filter={FILTER.replace('year', 'yaer')}", QUERY, {}, 422),
    "filter that is none": (f"{SEARCH}?filter=1990", QUERY, {}, 422),
    "filter beyond what a head may hold": (f"{SEARCH}?filter={LONG_FILTER}", QUERY, {}, 200),
    "by what is none": (f"{SEARCH}?by=name", QUERY, {}, 422),
    "search by key, odd length": (f"{SEARCH}?by=key", ASKED[:-1], {}, 422),
    "search for more hits than the lane encodes": (f"{SEARCH}?k=1000", 66 * QUERY, {}, 200),
    "k no number": (f"{SEARCH}?k=ten", QUERY, {}, 422),
}


@pytest.mark.parametrize("name", LEFT)
def test_what_the_lane_leaves_is_answered_by_the_ordinary_path(
    filled: World, servers: Servers, name: str
) -> None:
    path, body, headers, status = LEFT[name]
    length = "" if "transfer_encoding" in headers else str(len(body))
    wire = request(filled, path, body, **{"content_length": length, **headers})
    wires = [wire] if "connection" in headers else [wire, wire]
    before = servers.taken
    for answers in zip(ask(servers.plain, *wires), ask(servers.lane, *wires), strict=True):
        assert comparable(answers[0]) == comparable(answers[1])
        assert answers[1].status == status
    assert servers.taken == before


def test_http_1_0(filled: World, servers: Servers) -> None:
    wire = request(filled, LOOKUP, ASKED, http="1.0")
    assert comparable(*ask(servers.lane, wire)) == comparable(*ask(servers.plain, wire))


@pytest.mark.parametrize("path_and_body", [(LOOKUP, ASKED), (f"{SEARCH}?k=2", QUERY)])
def test_a_request_may_come_in_any_pieces(
    filled: World, servers: Servers, path_and_body: tuple[str, bytes]
) -> None:
    wire = request(filled, *path_and_body)
    expected = comparable(*ask(servers.plain, wire))
    head = wire.index(b"\r\n\r\n") + 4
    with Connection(servers.lane) as connection:
        for ends in ([5], [head], [head + 3], [head - 2], [7, head + 1, head + 2]):
            for start, end in itertools.pairwise([0, *ends, len(wire)]):
                connection.send(wire[start:end])
                time.sleep(0.02)  # so that the server reads the pieces one by one
            assert comparable(connection.answer()) == expected


@pytest.mark.parametrize("path_and_body", [(LOOKUP, ASKED), (f"{SEARCH}?k=2", QUERY)])
def test_pipelined_requests_are_answered_in_order(
    filled: World, servers: Servers, path_and_body: tuple[str, bytes]
) -> None:
    path, body = path_and_body
    wires = [request(filled, path, body, x_request_id=str(number)) for number in range(20)]
    with Connection(servers.lane) as connection:
        connection.send(wires[0])
        connection.send(b"".join(wires[1:10]))
        for wire in wires[10:]:
            connection.send(wire)
        ids = [connection.answer().header("x-request-id") for _ in wires]
    assert ids == [str(number).encode() for number in range(20)]


def test_a_body_that_looks_like_a_request_is_a_body(filled: World, servers: Servers) -> None:
    """Answered before its body has come, a request must not make a request of the rest."""
    inner = request(filled, LOOKUP, ASKED)
    outer = request(filled, LOOKUP, b"", token="nobody", length=2 * len(inner))
    with Connection(servers.lane) as connection:
        connection.send(outer)
        assert connection.answer().status == 401
        before = servers.taken
        connection.send(inner)
        connection.send(inner)
        connection.send(request(filled, LOOKUP, ASKED, x_request_id="after"))
        assert connection.answer().header("x-request-id") == b"after"
    assert servers.taken <= before + 1


def test_expect_continue(filled: World, servers: Servers) -> None:
    wire = request(filled, LOOKUP, ASKED, expect="100-continue")
    head = wire.index(b"\r\n\r\n") + 4
    with Connection(servers.lane) as connection:
        connection.send(wire[:head])
        assert connection.answer().status == 100
        connection.send(wire[head:])
        assert connection.answer().status == 200


def test_a_malformed_head_is_refused(filled: World, servers: Servers) -> None:
    wire = request(filled, LOOKUP, ASKED).replace(b"host: test", b"host: test\nx: y\n")
    assert ask(servers.lane, wire)[0].status == ask(servers.plain, wire)[0].status == 400


def test_two_lengths_are_refused(filled: World, servers: Servers) -> None:
    wire = request(filled, LOOKUP, ASKED).replace(b"host: test", b"content-length: 8")
    assert ask(servers.lane, wire)[0].status == ask(servers.plain, wire)[0].status == 400


def test_a_client_that_does_not_read_waits_on_the_ordinary_path(filled: World, servers: Servers) -> None:
    """The lane writes no more into a full buffer; nothing is lost or mixed up."""
    keys = encode_keys_raw(np.resize(KEYS, 2000))
    wires = [request(filled, LOOKUP, keys, x_request_id=str(number)) for number in range(600)]
    before = servers.taken
    with Connection(servers.lane) as connection:
        sender = threading.Thread(target=lambda: [connection.send(wire) for wire in wires])
        sender.start()
        time.sleep(0.5)  # the server answers what it can, and then waits
        ids = [connection.answer().header("x-request-id") for _ in wires]
        sender.join()
    assert ids == [str(number).encode() for number in range(len(wires))]
    assert servers.taken - before < len(wires)


def test_a_token_revoked_here_is_refused_at_once(filled: World, servers: Servers) -> None:
    issued = filled.ok("POST", "/v1/teams/other-team/tokens", json={})
    wire = request(filled, LOOKUP, ASKED, token=issued["secret"])
    assert [answer.status for answer in ask(servers.lane, wire, wire)] == [200, 200]
    filled.call("DELETE", f"/v1/teams/other-team/tokens/{issued['id']}")
    assert ask(servers.lane, wire)[0].status == 401


def test_requests_are_counted_alike(filled: World) -> None:
    """The same routes, statuses and rows, whoever answered."""
    counted = []
    for port in ("plain", "lane"):
        metrics = PrometheusMetrics("api")
        api = _counting(filled, metrics)
        with serve(api) as servers:
            wires = [request(filled, LOOKUP, ASKED)] * 3 + [request(filled, SEARCH, QUERY)] * 2
            ask(getattr(servers, port), *wires, request(filled, LOOKUP, ASKED[:-1]))
        lines = metrics.render()[0].decode().splitlines()
        counted.append(
            [line for line in lines if re.match(r".*(requests|rows|missing)_total|.*seconds_count", line)]
        )
    assert counted[0] == counted[1]
    assert any('route="/v1/spaces/{reference}/{space}/lookup",status="200"' in line for line in counted[1])


def _counting(world: World, metrics: PrometheusMetrics) -> Api:
    return create_app(world.platform.settings, replace(world.platform, metrics=metrics))


def test_idle_connections_are_closed(filled: World) -> None:
    with serve(filled.api, keep_alive_seconds=1) as servers, Connection(servers.lane) as connection:
        wire = request(filled, LOOKUP, ASKED)
        for _ in range(3):
            connection.send(wire)
            connection.answer()
            time.sleep(0.5)  # longer than the time-out together, shorter one by one
        began = time.monotonic()
        assert connection.ended()
        assert time.monotonic() - began < 5


def test_what_has_begun_is_answered_before_the_server_stops(filled: World) -> None:
    wire = request(filled, LOOKUP, ASKED)
    with serve(filled.api) as servers, Connection(servers.lane) as connection:
        connection.send(wire)
        connection.answer()
        connection.send(wire[:-4])
        time.sleep(0.1)
        for server in servers.running:
            server.should_exit = True
        time.sleep(0.3)
        connection.send(wire[-4:])
        assert connection.answer().status == 200
        assert connection.ended()


def test_the_lane_is_used_with_the_uvicorn_it_was_tested_with() -> None:
    """Whoever widens the range in pyproject.toml has run this file with the versions it lets in."""
    document = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())
    named = [Requirement(each) for each in document["project"]["optional-dependencies"]["server"]]
    (uvicorn_range,) = [each.specifier for each in named if each.name == "uvicorn"]
    assert version("uvicorn") in uvicorn_range
    assert any(each.operator == "<" for each in uvicorn_range)


def test_heads_that_never_come_again_are_not_remembered(filled: World) -> None:
    """A caller that traces its requests sends another head each time; those of the others stay known."""
    lane = filled.api.lane

    def head(**headers: str) -> bytes:
        return request(filled, LOOKUP, ASKED, **headers).removesuffix(ASKED)

    usual = lane.ask(head())
    assert usual is not None
    assert lane.ask(head()) is usual
    for headers in ({"traceparent": f"00-{'a' * 32}-{'b' * 16}-01"}, {"x_request_id": "abc-1"}):
        first = lane.ask(head(**headers))
        assert first is not None
        assert lane.ask(head(**headers)) is not first
