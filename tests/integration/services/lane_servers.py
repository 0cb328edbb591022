"""One API behind two sockets of one event loop: with the fast lane, and on uvicorn's protocol alone."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import uvicorn
import uvloop
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from bedplate_services.api import Api
from bedplate_services.lane.protocol import LaneProtocol

HOST = "127.0.0.1"


@dataclass
class Servers:
    """``lane`` and ``plain`` are ports."""

    lane: int = 0
    plain: int = 0
    counted: int = 0
    running: list[uvicorn.Server] = field(default_factory=list)
    loop: asyncio.AbstractEventLoop | None = None

    @property
    def taken(self) -> int:
        """How many requests the lane itself answered.

        An answer may be read here before the loop has counted it: what the loop is doing is waited for.
        """
        assert self.loop is not None
        asyncio.run_coroutine_threadsafe(asyncio.sleep(0), self.loop).result()
        return self.counted


@contextmanager
def serve(api: Api, *, keep_alive_seconds: int = 5) -> Iterator[Servers]:
    """Both servers, in a thread; they stop gracefully."""
    servers, ready = Servers(), threading.Event()

    class CountingProtocol(LaneProtocol):
        def _send(self, *arguments: Any) -> bool:
            sent = super()._send(*arguments)
            servers.counted += sent
            return sent

    listeners = [socket.create_server((HOST, 0)) for _ in range(2)]
    servers.lane, servers.plain = (listener.getsockname()[1] for listener in listeners)

    async def run() -> None:
        servers.loop = asyncio.get_running_loop()
        more: dict[str, Any] = {
            "access_log": False,
            "log_config": None,
            "server_header": False,
            "timeout_keep_alive": keep_alive_seconds,
            "timeout_graceful_shutdown": 5,
        }
        kinds: list[tuple[type[asyncio.Protocol], Any]] = [
            (CountingProtocol, "on"),
            (HttpToolsProtocol, "off"),
        ]
        for kind, lifespan in kinds:
            config = uvicorn.Config(api, http=kind, lifespan=lifespan, **more)
            servers.running.append(uvicorn.Server(config))
        # Not serve(), which takes over the signals of the main thread.
        tasks = [
            asyncio.create_task(server._serve([listener]))
            for server, listener in zip(servers.running, listeners, strict=True)
        ]
        while not all(one.started for one in servers.running):  # noqa: ASYNC110  # uvicorn sets no event
            await asyncio.sleep(0.01)
        ready.set()
        await asyncio.gather(*tasks)

    def main() -> None:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(run())

    thread = threading.Thread(target=main, name="lane-servers")
    thread.start()
    assert ready.wait(30)
    try:
        yield servers
    finally:
        for server in servers.running:
            server.should_exit = True
        thread.join()


@dataclass(frozen=True)
class Answer:
    """Head lines in order, and the body."""

    head: list[bytes]
    body: bytes

    @property
    def status(self) -> int:
        return int(self.head[0].split()[1])

    def header(self, name: str) -> bytes:
        prefix = f"{name}: ".encode()
        return next((line[len(prefix) :] for line in self.head if line.startswith(prefix)), b"")


class Connection:
    """Bytes out, answers in; pieces leave in separate segments."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection((HOST, port), 10)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._buffer = b""

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def answer(self) -> Answer:
        """The next one. Raises ConnectionError where the connection ends before."""
        while b"\r\n\r\n" not in self._buffer:
            self._more()
        head, _, rest = self._buffer.partition(b"\r\n\r\n")
        lines = head.split(b"\r\n")
        self._buffer = rest
        if lines[0].split()[1] == b"100":
            return Answer(lines, b"")
        length = int(Answer(lines, b"").header("content-length"))
        while len(self._buffer) < length:
            self._more()
        body, self._buffer = self._buffer[:length], self._buffer[length:]
        return Answer(lines, body)

    def ended(self) -> bool:
        """Whether the server has closed it; waits until it does."""
        return not self._buffer and self.socket.recv(1) == b""

    def _more(self) -> None:
        data = self.socket.recv(1 << 16)
        if not data:
            raise ConnectionError("the server closed the connection")
        self._buffer += data

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()
