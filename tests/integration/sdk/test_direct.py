"""Hot reads over the client's own connections, against a real server on this machine."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from typing import Any

import httpx
import numpy as np
import pytest

from bedplate import Client
from bedplate.client.direct import DirectConnections
from bedplate.client.effects import Request
from bedplate.codecs import RAW
from bedplate.errors import NotFound, Unavailable

from .local_server import serving

ROWS = {
    "content-type": RAW,
    "x-bedplate-rows": "1",
    "x-bedplate-dim": "2",
    "x-bedplate-dtype": "float32",
    "x-bedplate-version": "core@7",
    "x-bedplate-snapshot": "3",
}
PROBLEM = b'{"code": "not_found", "title": "Not found", "status": 404, "detail": "there is no such space"}'


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Any

    def do_POST(self) -> None:
        self.server.seen.append((self.connection, self.path, dict(self.headers)))
        self.rfile.read(int(self.headers["content-length"]))
        status, headers, body, hang_up = self.server.answer
        if status is None:
            time.sleep(body)
            return
        self.send_response(status)
        for name, value in {**headers, "content-length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)
        self.close_connection = hang_up

    def log_message(self, *_: object) -> None:
        return None


@pytest.fixture
def server() -> Iterator[Any]:
    with serving(Handler) as server:
        server.answer = (200, ROWS, np.array([1, 2], "<f4").tobytes() + b"\x01", False)
        yield server


@pytest.fixture
def client(server: Any) -> Iterator[Client]:
    with Client(server.url, "secret", sleep=lambda _: None, environment={}) as client:
        yield client


def look(client: Client) -> list[list[float]]:
    vectors: list[list[float]] = client.spaces.lookup("core@7/item", [1]).vectors.tolist()
    return vectors


def test_lookups_share_one_connection(server: Any, client: Client) -> None:
    assert [look(client) for _ in range(3)] == [[[1.0, 2.0]]] * 3
    assert len({id(connection) for connection, _, _ in server.seen}) == 1
    _, path, headers = server.seen[0]
    assert path == "/v1/spaces/core@7/item/lookup"
    assert headers["authorization"] == "Bearer secret"
    assert headers["accept"] == RAW


def test_a_connection_the_server_closed_is_not_used_again(server: Any, client: Client) -> None:
    look(client)
    connection = server.seen[0][0]
    connection.shutdown(2)
    assert look(client) == [[1.0, 2.0]]
    assert len(server.seen) == 2, "the second request was sent once"


def test_connection_close_is_obeyed(server: Any, client: Client) -> None:
    status, headers, body, _ = server.answer
    server.answer = (status, {**headers, "connection": "close"}, body, True)
    assert [look(client) for _ in range(2)] == [[[1.0, 2.0]]] * 2
    assert server.seen[0][0] is not server.seen[1][0]


def test_problems_become_errors(server: Any, client: Client) -> None:
    headers = {"content-type": "application/problem+json", "x-request-id": "r7"}
    server.answer = (404, headers, PROBLEM, False)
    with pytest.raises(NotFound, match="there is no such space") as raised:
        look(client)
    assert raised.value.request_id == "r7"
    assert len(server.seen) == 1


def test_an_overloaded_server_is_asked_again(server: Any, client: Client) -> None:
    server.answer = (503, {"content-type": "text/plain"}, b"", False)
    with pytest.raises(Unavailable, match="503"):
        look(client)
    assert len(server.seen) == 4


def test_nobody_there(server: Any) -> None:
    server.server_close()
    with (
        Client(server.url, "secret", sleep=lambda _: None, environment={}) as client,
        pytest.raises(Unavailable, match="bedplate up"),
    ):
        look(client)


def test_an_answer_that_does_not_come(server: Any) -> None:
    server.answer = (None, {}, 1.0, True)
    direct = DirectConnections(server.url, {}, httpx.Timeout(0.05), httpx.create_ssl_context())
    with pytest.raises(httpx.ReadTimeout):
        direct.send(Request("POST", "/v1/spaces/core@7/item/lookup", content=b"x"))
    direct.close()


def test_threads_do_not_share_a_connection_at_once(server: Any, client: Client) -> None:
    threads = [threading.Thread(target=lambda: [look(client) for _ in range(20)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(server.seen) == 80
    assert len({id(connection) for connection, _, _ in server.seen}) <= 4


@pytest.mark.parametrize(
    ("url", "proxies", "possible"),
    [
        ("http://127.0.0.1:8700", {}, True),
        ("https://bedplate.test", {}, True),
        ("https://bedplate.test", {"http_proxy": "http://proxy:3128"}, True),
        ("https://bedplate.test", {"https_proxy": "http://proxy:3128"}, False),
        ("https://bedplate.test", {"all_proxy": "http://proxy:3128"}, False),
        ("http://bedplate.test", {"http_proxy": "http://proxy:3128"}, False),
        ("http://bedplate.test", {"http_proxy": "http://proxy:3128", "no_proxy": "bedplate.test"}, True),
    ],
)
def test_where_it_is_used(
    monkeypatch: pytest.MonkeyPatch, url: str, proxies: dict[str, str], possible: bool
) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    for name, value in proxies.items():
        monkeypatch.setenv(name, value)
    assert DirectConnections.possible(url) is possible
