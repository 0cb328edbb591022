"""The API's connections to store nodes, over real sockets, on the event loop that it runs on."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import pytest
import uvloop

from bedplate_services.shards.connections import NodeAnswer, NodeConnections, NodeFailed

ANSWER = b"HTTP/1.1 200 OK\r\ncontent-type: x\r\nContent-Length: 3\r\n\r\nabc"
PATIENCE_SECONDS = 20.0
Script = Iterable[bytes | None]


class Node:
    """Answers the n-th request of all its connections with the n-th of ``script``, piece by piece.

    None: the connection is closed instead; b"": nothing comes.
    """

    def __init__(self, *script: Script) -> None:
        self._script = list(script)
        self.requests: list[bytes] = []
        self.connections = 0
        self.closed = asyncio.Event()

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.split(b"content-length: ")[1].split(b"\r\n")[0])
                self.requests.append(head + await reader.readexactly(length))
                for piece in self._script.pop(0):
                    if piece is None:
                        return
                    writer.write(piece)
                    await writer.drain()
                    await asyncio.sleep(0)
        except asyncio.IncompleteReadError:
            self.closed.set()
        finally:
            writer.close()


def run(node: Callable[[], Node], work: Callable[[Node, NodeConnections, str], Awaitable[Any]]) -> Any:
    async def main() -> Any:
        serving = node()
        server = await asyncio.start_server(serving, "127.0.0.1", 0)
        connections = NodeConnections("secret")
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with asyncio.timeout(PATIENCE_SECONDS):
            found = await work(serving, connections, url)
        connections.close()
        server.close()
        return found

    return uvloop.run(main())


def test_a_connection_is_kept_and_answers_come_in_any_pieces() -> None:
    async def work(node: Node, connections: NodeConnections, url: str) -> None:
        for _ in range(3):
            assert await connections.post(url, "/x?y=1", b"body") == NodeAnswer(200, b"abc")
        assert node.connections == 1
        assert node.requests[0].startswith(b"POST /x?y=1 HTTP/1.1\r\n")
        assert b"authorization: Bearer secret\r\n" in node.requests[0]
        assert node.requests[0].endswith(b"\r\n\r\nbody")

    single = [bytes([byte]) for byte in ANSWER]
    run(lambda: Node([ANSWER], single, [ANSWER[:30], ANSWER[30:]]), work)


def test_the_ids_of_the_requests_are_the_last_header() -> None:
    async def work(node: Node, connections: NodeConnections, url: str) -> None:
        await connections.post(url, "/x", b"body", ["one", "other"])
        assert node.requests[0].endswith(b"\r\nx-request-id: one,other\r\n\r\nbody")

    run(lambda: Node([ANSWER]), work)


def test_requests_at_the_same_time_have_connections_of_their_own() -> None:
    async def work(node: Node, connections: NodeConnections, url: str) -> None:
        answers = await asyncio.gather(*(connections.post(url, "/x", b"b") for _ in range(3)))
        assert [answer.body for answer in answers] == [b"abc"] * 3
        assert node.connections == 3

    run(lambda: Node([ANSWER], [ANSWER], [ANSWER]), work)


def test_what_a_node_says_beside_200_is_told() -> None:
    async def work(_: Node, connections: NodeConnections, url: str) -> NodeAnswer:
        return await connections.post(url, "/x", b"b")

    passed = b"HTTP/1.1 412 Precondition Failed\r\ncontent-length: 1\r\n\r\n8"
    assert run(lambda: Node([passed]), work) == NodeAnswer(412, b"8")


def test_an_idle_connection_that_the_node_closed_is_replaced() -> None:
    async def work(node: Node, connections: NodeConnections, url: str) -> None:
        assert (await connections.post(url, "/x", b"first")).status == 200
        # The node closes it when the second request comes: before any byte of an answer.
        assert (await connections.post(url, "/x", b"second")).body == b"abc"
        assert [request[-6:] for request in node.requests[1:]] == [b"second", b"second"]

    run(lambda: Node([ANSWER], [None], [ANSWER]), work)


def test_closing_is_what_a_node_may_ask_for() -> None:
    async def work(node: Node, connections: NodeConnections, url: str) -> None:
        for _ in range(2):
            assert (await connections.post(url, "/x", b"b")).status == 200
        assert node.connections == 2

    closing = ANSWER.replace(b"content-type: x", b"Connection: close")
    run(lambda: Node([closing], [ANSWER]), work)


@pytest.mark.parametrize(
    "script", [[None], [ANSWER[:-1], None], [b"HTTP/1.1 200 OK\r\n\r\n"], [b"nonsense\r\n\r\n"]]
)
def test_an_answer_that_breaks_off_or_is_none_fails(script: Script) -> None:
    async def work(_: Node, connections: NodeConnections, url: str) -> None:
        with pytest.raises(NodeFailed, match=r"http://127\.0\.0\.1"):
            await connections.post(url, "/x", b"b")

    run(lambda: Node(script), work)


def test_nobody_there_fails_at_once() -> None:
    async def work(_: Node, connections: NodeConnections, url: str) -> None:
        with pytest.raises(NodeFailed):
            await connections.post("http://127.0.0.1:9", "/x", b"b")

    run(lambda: Node(), work)


def test_a_request_that_is_cancelled_takes_its_connection_along() -> None:
    async def work(node: Node, connections: NodeConnections, url: str) -> None:
        asked = connections.post(url, "/x", b"b")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await asked
        await node.closed.wait()
        assert (await connections.post(url, "/x", b"b")).body == b"abc"
        assert node.connections == 2

    run(lambda: Node([b""], [ANSWER]), work)
