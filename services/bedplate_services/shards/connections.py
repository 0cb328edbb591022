"""Keep-alive HTTP connections to store nodes, for small answers asked for thousands of times a second.

Just enough of HTTP for our own two ends: a POST with a body, an answer with a content-length. Bytes are met
in the transport's callbacks: a stream reader and a task for each exchange cost more than the exchange.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, cast
from urllib.parse import urlsplit

from bedplate_services.shards.exchange import REQUEST_ID

_REQUEST_ID = REQUEST_ID.decode()
_END_OF_HEAD = b"\r\n\r\n"
_HEAD_BYTES_MAX = 1 << 14
_IDLE_MAX = 64
_STATUS = re.compile(rb"HTTP/1\.1 (\d{3}) ")
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)\r\n", re.IGNORECASE)
_CLOSES = re.compile(rb"\r\nconnection: *close\r\n", re.IGNORECASE)


class NodeFailed(Exception):
    """A node could not be reached, or its answer broke off."""


class NodeAnswer(NamedTuple):
    status: int
    body: bytes


@dataclass(slots=True)
class _Asked:
    """A request under way; ``again``: it may be sent once more, as its connection had been idle."""

    request: bytes
    answer: asyncio.Future[NodeAnswer]
    again: bool


class NodeConnections:
    """Belongs to one event loop. ``secret`` and the ``headers`` of the moment go with every request."""

    def __init__(self, secret: str, headers: Callable[[], Mapping[str, str]] = dict) -> None:
        self._secret = secret
        self._headers = headers
        self._idle: dict[str, list[_Connection]] = {}
        self._connecting: set[asyncio.Task[None]] = set()

    def post(
        self, url: str, target: str, body: bytes, requests: Sequence[str] = ()
    ) -> asyncio.Future[NodeAnswer]:
        """Send ``body`` for the requests of these ids; cancelling the future closes the connection.

        The future's exception is NodeFailed where there is no connection, or it ended before the answer did.
        """
        request = self._request(url, target, body, requests)
        asked = _Asked(request, asyncio.get_running_loop().create_future(), True)
        idle = self._idle.get(url)
        while idle:
            connection = idle.pop()
            if connection.usable:
                connection.ask(asked)
                return asked.answer
        self._connect(url, asked)
        return asked.answer

    def close(self) -> None:
        """Close what is idle."""
        for idle in self._idle.values():
            for connection in idle:
                connection.close()
        self._idle = {}

    def _connect(self, url: str, asked: _Asked) -> None:
        asked.again = False  # a new connection that fails says something about the node
        task = asyncio.get_running_loop().create_task(self._connected(url, asked))
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)

    async def _connected(self, url: str, asked: _Asked) -> None:
        parts = urlsplit(url)
        try:
            _, connection = await asyncio.get_running_loop().create_connection(
                lambda: _Connection(
                    url,
                    lambda done: self._put_back(url, done),
                    lambda lost: self._connect(url, lost),
                ),
                parts.hostname or "",
                parts.port or 0,
            )
        except OSError as error:
            if not asked.answer.done():
                asked.answer.set_exception(NodeFailed(f"{url}: {error}"))
            return
        if asked.answer.done():
            connection.close()  # cancelled meanwhile
        else:
            connection.ask(asked)

    def _put_back(self, url: str, connection: _Connection) -> None:
        idle = self._idle.setdefault(url, [])
        if len(idle) < _IDLE_MAX:
            idle.append(connection)
        else:
            connection.close()

    def _request(self, url: str, target: str, body: bytes, requests: Sequence[str]) -> bytes:
        head = (
            f"POST {target} HTTP/1.1\r\nhost: {urlsplit(url).netloc}\r\n"
            f"authorization: Bearer {self._secret}\r\n"
            f"content-type: application/octet-stream\r\ncontent-length: {len(body)}\r\n"
        )
        head += "".join(f"{name}: {value}\r\n" for name, value in self._headers().items())
        if requests:
            head += f"{_REQUEST_ID}: {','.join(requests)}\r\n"  # the last: see the node's lane
        return f"{head}\r\n".encode() + body


class _Connection(asyncio.Protocol):
    """One request at a time.

    Args:
        idle: called when an answer is whole and the connection stays open.
        lost: called with a request that the node did not begin to answer.
    """

    def __init__(self, url: str, idle: Callable[[_Connection], None], lost: Callable[[_Asked], None]) -> None:
        self._url, self._on_idle, self._on_lost = url, idle, lost
        self._transport: asyncio.Transport | None = None
        self._asked: _Asked | None = None
        self._received = bytearray()
        self._status, self._body_at, self._end, self._closes = 0, 0, 0, False

    @property
    def usable(self) -> bool:
        return self._transport is not None and not self._transport.is_closing()

    def ask(self, asked: _Asked) -> None:
        assert self._transport is not None
        self._asked = asked
        asked.answer.add_done_callback(self._settled)
        self._transport.write(asked.request)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by inheritance

    def data_received(self, data: bytes) -> None:
        if self._asked is None:
            self.close()  # nobody asked
            return
        self._received += data
        if self._end == 0 and not self._head_read():
            return
        if len(self._received) >= self._end:
            self._finish(self._asked)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        asked, self._asked = self._asked, None
        if asked is None or asked.answer.done():
            return
        if asked.again and not self._received:
            self._on_lost(asked)  # the node closed an idle connection just then
        else:
            asked.answer.set_exception(NodeFailed(f"{self._url}: {exc or 'the connection ended'}"))

    def _head_read(self) -> bool:
        """Whether the head is here; a head that cannot be read ends the connection."""
        end = self._received.find(_END_OF_HEAD)
        if end < 0 and len(self._received) < _HEAD_BYTES_MAX:
            return False
        head = bytes(self._received[: end + 2])
        status, length = _STATUS.match(head), _LENGTH.search(head)
        if end < 0 or status is None or length is None:
            self.close()
            return False
        self._status, self._closes = int(status[1]), _CLOSES.search(head) is not None
        self._body_at = end + len(_END_OF_HEAD)
        self._end = self._body_at + int(length[1])
        return True

    def _finish(self, asked: _Asked) -> None:
        answer = NodeAnswer(self._status, bytes(memoryview(self._received)[self._body_at : self._end]))
        whole = len(self._received) == self._end
        self._asked, self._received, self._end = None, bytearray(), 0
        if self._closes or not whole:
            self.close()
        else:
            self._on_idle(self)
        if not asked.answer.done():
            asked.answer.set_result(answer)

    def _settled(self, answer: asyncio.Future[NodeAnswer]) -> None:
        if answer.cancelled() and self._asked is not None and self._asked.answer is answer:
            self.close()  # what still comes belongs to nobody
