"""Keep-alive HTTP connections to store nodes, for small answers asked for thousands of times a second.

Just enough of HTTP for our own two ends: a POST with a body, an answer with a content-length.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple
from urllib.parse import urlsplit

_LIMIT_BYTES = 1 << 20
_IDLE_MAX = 64


class NodeFailed(Exception):
    """A node could not be reached, or its answer broke off."""


class NodeAnswer(NamedTuple):
    status: int
    body: bytes


@dataclass(frozen=True, slots=True)
class _Connection:
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    @property
    def usable(self) -> bool:
        return not (self.reader.at_eof() or self.writer.is_closing())


class NodeConnections:
    """Belongs to one event loop. ``secret`` and the ``headers`` of the moment go with every request."""

    def __init__(self, secret: str, headers: Callable[[], Mapping[str, str]] = dict) -> None:
        self._secret = secret
        self._headers = headers
        self._idle: dict[str, list[_Connection]] = {}

    async def post(self, url: str, target: str, body: bytes) -> NodeAnswer:
        """Send ``body``; cancelling it closes the connection.

        Raises:
            NodeFailed: no connection, or it ended before the answer did.
        """
        idle = self._idle.setdefault(url, [])
        while idle:
            connection = idle.pop()
            if not connection.usable:
                connection.writer.close()
                continue
            with contextlib.suppress(NodeFailed):  # the node may have closed it just now: ask once more
                return await self._exchange(connection, url, target, body)
            break
        return await self._exchange(await _connect(url), url, target, body)

    def close(self) -> None:
        """Close what is idle."""
        for idle in self._idle.values():
            for connection in idle:
                connection.writer.close()
        self._idle = {}

    async def _exchange(self, connection: _Connection, url: str, target: str, body: bytes) -> NodeAnswer:
        whole = False
        try:
            connection.writer.write(self._request(url, target, body))
            head = await connection.reader.readuntil(b"\r\n\r\n")
            status, length, keeps = _read_head(head)
            answer = NodeAnswer(status, await connection.reader.readexactly(length))
            whole = True
        except (OSError, EOFError, asyncio.LimitOverrunError, ValueError) as error:
            raise NodeFailed(f"{url}: {error or type(error).__name__}") from error
        finally:
            idle = self._idle.setdefault(url, [])
            if whole and keeps and len(idle) < _IDLE_MAX:
                idle.append(connection)
            else:
                connection.writer.close()
        return answer

    def _request(self, url: str, target: str, body: bytes) -> bytes:
        head = (
            f"POST {target} HTTP/1.1\r\nhost: {urlsplit(url).netloc}\r\n"
            f"authorization: Bearer {self._secret}\r\n"
            f"content-type: application/octet-stream\r\ncontent-length: {len(body)}\r\n"
        )
        head += "".join(f"{name}: {value}\r\n" for name, value in self._headers().items()) + "\r\n"
        return head.encode() + body


async def _connect(url: str) -> _Connection:
    parts = urlsplit(url)
    try:
        return _Connection(*await asyncio.open_connection(parts.hostname, parts.port, limit=_LIMIT_BYTES))
    except OSError as error:
        raise NodeFailed(f"{url}: {error}") from error


def _read_head(head: bytes) -> tuple[int, int, bool]:
    """Status, length of the body, and whether the connection stays open."""
    status, *lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    keeps = headers.get("connection", "").lower() != "close"
    return int(status.split(" ", 2)[1]), int(headers["content-length"]), keeps
