"""Bodies of answers, read into memory that the reader gives: a byte of many gigabytes is copied once.

``readinto(room)`` puts some bytes into ``room``, which is not empty, and says how many; 0 at the end. It
raises httpx.TransportError where the connection breaks or closes early; what came before was given before.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from http.client import HTTPConnection, HTTPException, HTTPResponse

import httpx


class _Chunk:
    """What is left of the last chunk that httpx gave."""

    def __init__(self) -> None:
        self._rest = memoryview(b"")

    def take(self, room: memoryview) -> int:
        count = min(len(room), len(self._rest))
        room[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count

    def refill(self, chunk: bytes) -> None:
        self._rest = memoryview(chunk)

    @property
    def empty(self) -> bool:
        return not self._rest


class HttpxBody:
    """The body of an answer to httpx.Client."""

    def __init__(self, response: httpx.Response) -> None:
        self._response = response
        self._chunks: Iterator[bytes] = response.iter_bytes()
        self._chunk = _Chunk()

    def readinto(self, room: memoryview) -> int:
        if self._chunk.empty:
            self._chunk.refill(next(self._chunks, b""))
        return self._chunk.take(room)

    def close(self) -> None:
        """What has not come is not read."""
        self._response.close()


class AsyncHttpxBody:
    """The body of an answer to httpx.AsyncClient."""

    def __init__(self, response: httpx.Response) -> None:
        self._response = response
        self._chunks: AsyncIterator[bytes] = response.aiter_bytes()
        self._chunk = _Chunk()

    async def readinto(self, room: memoryview) -> int:
        if self._chunk.empty:
            self._chunk.refill(await anext(self._chunks, b""))
        return self._chunk.take(room)

    async def aclose(self) -> None:
        """What has not come is not read."""
        await self._response.aclose()


class SocketBody:
    """The body of an answer on a connection of our own, read from its socket.

    Args:
        keep: given connection and answer when the body is whole.
    """

    def __init__(
        self,
        connection: HTTPConnection,
        answer: HTTPResponse,
        keep: Callable[[HTTPConnection, HTTPResponse], None],
    ) -> None:
        self._connection = connection
        self._answer = answer
        self._keep = keep
        self._left = answer.length  # None: as many as come, until the last HTTP chunk or the connection's end
        self._ended = False
        if self._left == 0:
            self._end()

    def readinto(self, room: memoryview) -> int:
        if self._ended:
            return 0
        try:
            count = self._read(room)
        except TimeoutError as error:
            self.close()
            raise httpx.ReadTimeout(str(error)) from error
        except (OSError, HTTPException) as error:
            self.close()
            raise httpx.ReadError(str(error)) from error
        if self._left is not None:
            self._left -= count
        if self._left == 0 or (count == 0 and self._left is None):
            self._end()
        elif count == 0:
            self.close()
            raise httpx.RemoteProtocolError(f"the connection closed {self._left} bytes too early")
        return count

    def _read(self, room: memoryview) -> int:
        if self._answer.chunked:
            return self._answer.readinto(room)
        # One read of the socket at the most: what came before a break is kept.
        return self._answer.fp.readinto1(room if self._left is None else room[: self._left])

    def _end(self) -> None:
        self._ended = True
        self._answer.close()
        self._keep(self._connection, self._answer)

    def close(self) -> None:
        """What has not come is not read; the connection goes with it."""
        if not self._ended:
            self._ended = True
            self._answer.close()
            self._connection.close()
