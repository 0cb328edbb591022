"""The limits of an HTTP answer: an ASGI application that sends prepared bytes, or does the bare work.

It runs in a process of its own under the very function that serves the platform, so that loop, parser and
uvicorn's settings are the same, and the system treats it as the platform's services.
"""

from __future__ import annotations

import multiprocessing
import os
import socket
import time
from typing import Self

from starlette.types import Receive, Scope, Send

from bedplate.errors import InternalError
from bedplate_services import serve
from bedplate_services.draining import Draining
from bedplate_services.settings import Settings
from bedplate_services.supervisor.ports import choose_ports
from bedplate_services.supervisor.time_slices import ask_for_short_slices
from benchmarks.bare_work import Answer, described

_START_SECONDS = 60.0


class BareApplication:
    """``POST /<n>`` answers n bytes; ``POST <file>`` does the work described in that file."""

    def __init__(self) -> None:
        self._answers: dict[str, Answer] = {}

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
        answer = self._answers.get(path)
        if answer is None:
            answer = self._answers[path] = _answer(path)
        body = answer(asked)
        headers = [
            (b"content-type", b"application/octet-stream"),
            (b"content-length", str(len(body)).encode()),
        ]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})


def _answer(path: str) -> Answer:
    number = path.removeprefix("/")
    if not number.isdecimal():
        return described(path)
    prepared = bytes(int(number))
    return lambda _: prepared


async def _lifespan(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return


def _serve(host: str, port: int) -> None:
    os.setsid()  # as the supervisor starts a service: a session of its own, and short time slices
    ask_for_short_slices()
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
