"""The load generator: a process of its own that sends prepared requests over keep-alive connections."""

from __future__ import annotations

import asyncio
import multiprocessing
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Self, cast

import numpy as np
import uvloop
from numpy.typing import NDArray

from bedplate.errors import InternalError
from benchmarks.figures import Sample

_CONTENT_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_OK = b"HTTP/1.1 200"


@dataclass(frozen=True)
class Target:
    """Where requests go, and what they look like on the wire: each of ``wires`` is head and body in one."""

    host: str
    port: int
    wires: Sequence[bytes]


def wire(
    path: str,
    body: bytes,
    *,
    token: str = "",
    host: str = "127.0.0.1",
    media: str = "application/octet-stream",
    accept: str = "application/octet-stream",
) -> bytes:
    """A POST, of raw bytes that asks for raw bytes unless the media types say otherwise."""
    lines = [f"POST {path} HTTP/1.1", f"host: {host}", f"content-type: {media}", f"accept: {accept}"]
    if token:
        lines.append(f"authorization: Bearer {token}")
    lines.append(f"content-length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode() + body


class Exchange(asyncio.Protocol):
    """One connection: as soon as an answer is whole, the next request leaves."""

    def __init__(self, wires: Sequence[bytes], finished: asyncio.Future[list[float]]) -> None:
        self._wires = iter(wires)
        self._finished = finished
        self._buffer = bytearray()
        self._whole = 0  # length of the present answer, 0 until its head is here
        self._sent_at = 0.0
        self._seconds: list[float] = []
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one by its methods alone

    def start(self) -> None:
        """Send the first request."""
        assert self._transport is not None
        request = next(self._wires, None)
        if request is None:
            self._transport.close()
            if not self._finished.done():
                self._finished.set_result(self._seconds)
            return
        self._sent_at = time.perf_counter()
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if self._whole == 0:
            end = self._buffer.find(b"\r\n\r\n")
            if end < 0:
                return
            length = _CONTENT_LENGTH.search(self._buffer, 0, end + 2)
            if not self._buffer.startswith(_OK) or length is None:
                self._fail(f"the answer is not as expected: {bytes(self._buffer[:500])!r}")
                return
            self._whole = end + 4 + int(length.group(1))
        if len(self._buffer) >= self._whole:
            self._seconds.append(time.perf_counter() - self._sent_at)
            self._buffer.clear()
            self._whole = 0
            self.start()

    def connection_lost(self, exc: Exception | None) -> None:
        self._fail(f"the connection was closed: {exc}")

    def _fail(self, reason: str) -> None:
        if not self._finished.done():
            self._finished.set_exception(InternalError(reason))


async def _fire(target: Target, connections: int, requests: int) -> tuple[float, NDArray[np.float64]]:
    """Wall-clock seconds of all requests, and the seconds of each; connecting is not counted."""
    loop = asyncio.get_running_loop()
    shares = [range(first, requests, connections) for first in range(connections)]
    exchanges, answers = [], []
    for share in shares:
        wires = [target.wires[number % len(target.wires)] for number in share]
        finished: asyncio.Future[list[float]] = loop.create_future()
        exchange = Exchange(wires, finished)
        await loop.create_connection(lambda made=exchange: made, target.host, target.port)  # type: ignore[misc]  # binds the loop's variable
        exchanges.append(exchange)
        answers.append(finished)
    began = time.perf_counter()
    for exchange in exchanges:
        exchange.start()
    seconds = await asyncio.gather(*answers)
    return time.perf_counter() - began, np.concatenate([np.asarray(each) for each in seconds])


def _serve(pipe: Connection) -> None:
    """The generator's process: fires what comes through the pipe until it closes."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        while True:
            try:
                target, connections, requests = pipe.recv()
            except EOFError:
                return
            try:
                pipe.send(runner.run(_fire(target, connections, requests)))
            except (InternalError, OSError) as error:
                pipe.send(str(error))


class LoadGenerator:
    """The process; one for a run."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, other = context.Pipe()
        self._process = context.Process(target=_serve, args=(other,), daemon=True)
        self._process.start()
        other.close()

    def fire(self, target: Target, *, connections: int, requests: int, work: int = 1) -> Sample:
        """Send ``requests`` over ``connections``; the rate is in requests times ``work`` a second.

        Raises:
            InternalError: an answer was no 200, or a connection broke.
        """
        self._pipe.send((target, connections, requests))
        answer = self._pipe.recv()
        if isinstance(answer, str):
            raise InternalError(f"{target.host}:{target.port}: {answer}")
        wall_seconds, seconds = answer
        return Sample(requests * work / wall_seconds, seconds)

    def close(self) -> None:
        self._pipe.close()
        self._process.join(10)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
