"""What a Kubernetes Service does with connections: a new one goes to an endpoint that is ready, an open one
stays where it is, whatever becomes of that endpoint.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self
from urllib.parse import urlsplit

import httpx

PROBE_SECONDS = 0.1


@dataclass(eq=False)
class Endpoint:
    """``retired``: no new connections, as when a pod is being deleted."""

    url: str
    ready: bool = False
    retired: bool = False
    taken: int = 0


class ServiceBalancer:
    """A TCP proxy in a thread of its own.

    Attributes:
        url: where it listens.
        refused: connections that came while no endpoint was ready.
    """

    def __init__(self) -> None:
        self.url = ""
        self.refused = 0
        self._endpoints: list[Endpoint] = []
        self._turns = itertools.count()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="balancer", daemon=True)
        self._tasks: set[asyncio.Task[None]] = set()

    def add(self, url: str) -> Endpoint:
        """Look whether it is ready from now on."""
        endpoint = Endpoint(url)
        self._endpoints.append(endpoint)
        return endpoint

    def retire(self, endpoint: Endpoint, after_seconds: float = 0.0) -> None:
        """It is being deleted; the proxies of all machines know it so much later."""
        self._loop.call_soon_threadsafe(self._loop.call_later, after_seconds, self._retire, endpoint)

    def _retire(self, endpoint: Endpoint) -> None:
        endpoint.retired = True

    def __enter__(self) -> Self:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._open(), self._loop).result()
        return self

    def __exit__(self, *_error: object) -> None:
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _open(self) -> None:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        self._keep(self._probe())

    async def _close(self) -> None:
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _keep(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _probe(self) -> None:
        async with httpx.AsyncClient(trust_env=False) as client:
            while True:
                for endpoint in self._endpoints:
                    try:
                        answer = await client.get(f"{endpoint.url}/readyz")
                        endpoint.ready = answer.status_code == httpx.codes.OK
                    except httpx.TransportError:
                        endpoint.ready = False
                await asyncio.sleep(PROBE_SECONDS)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._keep(self._pass_on(reader, writer))

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there = [each for each in self._endpoints if each.ready and not each.retired]
        if not there:
            self.refused += 1
            writer.transport.abort()
            return
        endpoint = there[next(self._turns) % len(there)]
        endpoint.taken += 1
        address = urlsplit(endpoint.url)
        upstream = await asyncio.open_connection(address.hostname, address.port)
        await asyncio.gather(_pump(reader, upstream[1]), _pump(upstream[0], writer))


async def _pump(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    """Until the source ends; then the target is told."""
    end: Callable[[], None] = target.close
    try:
        while data := await source.read(1 << 16):
            target.write(data)
            await target.drain()
    except ConnectionError:
        end = target.transport.abort
    with contextlib.suppress(ConnectionError, RuntimeError):
        end()
