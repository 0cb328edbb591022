"""The limits of an HTTP answer: an ASGI application that sends prepared bytes, or rows by their numbers.

It runs in a process of its own under the very function that serves the platform, so that loop, parser and
uvicorn's settings are the same.
"""

from __future__ import annotations

import multiprocessing
import socket
import time
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from starlette.types import Receive, Scope, Send

from bedplate.errors import InternalError
from bedplate_services import serve
from bedplate_services.draining import Draining
from bedplate_services.settings import Settings
from bedplate_services.supervisor.ports import choose_ports

_START_SECONDS = 60.0
_ROWS = "/rows/"


class BareApplication:
    """``POST /<n>`` answers n bytes. ``POST /rows/<dtype>/<dim>/<file>`` answers the rows of the file whose
    numbers, int64, are the body: what is left of a lookup without its keys.
    """

    def __init__(self) -> None:
        self._bodies: dict[str, bytes] = {}
        self._files: dict[str, NDArray[Any]] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
            return
        message = await receive()
        asked = message.get("body", b"")
        while message.get("more_body", False):
            message = await receive()
            asked += message.get("body", b"")
        path = scope["path"]
        body = self._rows(path, asked) if path.startswith(_ROWS) else self._body(path)
        headers = [
            (b"content-type", b"application/octet-stream"),
            (b"content-length", str(len(body)).encode()),
        ]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    def _body(self, path: str) -> bytes:
        known = self._bodies.get(path)
        if known is None:
            known = self._bodies[path] = bytes(int(path.removeprefix("/")))
        return known

    def _rows(self, path: str, asked: bytes) -> bytes:
        vectors = self._files.get(path)
        if vectors is None:
            dtype, dim, file = path.removeprefix(_ROWS).split("/", 2)
            mapped = np.memmap(file, np.dtype(dtype), "r").reshape(-1, int(dim))
            vectors = self._files[path] = np.asarray(mapped)
        return vectors[np.frombuffer(asked, np.int64)].tobytes()


async def _lifespan(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return


def _serve(host: str, port: int) -> None:
    nowhere = "sqlite://"
    settings = Settings.model_validate(
        {
            "registry_database_url": nowhere,
            "store_database_url": nowhere,
            "objects_url": "memory://",
            "cache_dir": ".",
            "spool_dir": ".",
            "log_level": "WARNING",
            "drain_seconds": 0,
        }
    )
    serve.run(BareApplication(), settings, host, port, draining=Draining())


class BareServer:
    """The process; ``host`` and ``port`` are where it answers."""

    def __init__(self, host: str = "127.0.0.1") -> None:
        self.host = host
        (self.port,) = choose_ports(host, [(0, "--port")])
        context = multiprocessing.get_context("spawn")
        self._process = context.Process(target=_serve, args=(self.host, self.port), daemon=True)
        self._process.start()
        self._wait()

    @property
    def pid(self) -> int:
        return self._process.pid or 0

    def _wait(self) -> None:
        deadline = time.monotonic() + _START_SECONDS
        while True:
            try:
                with socket.create_connection((self.host, self.port), 1.0):
                    return
            except OSError as error:
                if time.monotonic() > deadline or not self._process.is_alive():
                    raise InternalError(f"the bare server did not start: {error}") from error
                time.sleep(0.05)

    def close(self) -> None:
        self._process.terminate()
        self._process.join(10)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
