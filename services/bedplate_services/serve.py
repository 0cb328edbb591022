"""Running an ASGI application as a process."""

from __future__ import annotations

import gc
import signal
import socket
import time
from pathlib import Path
from types import FrameType

import uvicorn
from starlette.types import ASGIApp

from bedplate_services.draining import Draining
from bedplate_services.lane.protocol import LaneProtocol
from bedplate_services.logging import configure
from bedplate_services.settings import Settings
from bedplate_services.tracing import traced
from bedplate_store.tracing import UNTRACED, Tracing

GRACE_SECONDS = 10


class _Server(uvicorn.Server):
    """Makes ``ready_file`` once connections are taken, and drains before it stops.

    What was made until then stays: the garbage collector need not look at it during a request.
    """

    def __init__(
        self, config: uvicorn.Config, ready_file: Path | None, draining: Draining, drain_seconds: float
    ) -> None:
        super().__init__(config)
        self._ready_file = ready_file
        self._draining = draining
        self._drain_seconds = drain_seconds
        self._drained_at = float("inf")

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        gc.collect()
        gc.freeze()
        if self.started and self._ready_file is not None:
            self._ready_file.touch()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """SIGTERM drains, and then the process ends with status 0; a second one, or Ctrl-C, stops it now."""
        if sig == signal.SIGTERM and not self._draining.begun:
            self._drained_at = time.monotonic() + self._drain_seconds
            self._draining.begin()
        elif sig == signal.SIGTERM:
            self._drained_at = 0.0
        else:
            super().handle_exit(sig, frame)

    async def on_tick(self, counter: int) -> bool:
        if time.monotonic() >= self._drained_at:
            self.should_exit = True
        return await super().on_tick(counter)


def run(
    app: ASGIApp,
    settings: Settings,
    host: str,
    port: int,
    *,
    draining: Draining,
    processes: int = 1,
    ready_file: Path | None = None,
    tracing: Tracing = UNTRACED,
) -> None:
    """Serve until SIGTERM or SIGINT. After SIGTERM all goes on for ``drain_seconds``; requests then in flight
    get ``GRACE_SECONDS`` to end.

    uvloop, because uvicorn's asyncio loop loses TCP_NODELAY where there are several workers.

    Args:
        draining: begun at SIGTERM; the application looks at it.
        processes: how many processes listen on the port; this is one of them.
        ready_file: made once connections are taken.
    """
    configure(settings.log_level, tracing.log_processors)
    config = uvicorn.Config(
        traced(app, tracing),
        host=host,
        port=port,
        loop="uvloop",
        http=LaneProtocol,
        lifespan="on",
        access_log=False,
        log_config=None,
        timeout_graceful_shutdown=GRACE_SECONDS,
        server_header=False,
    )
    server = _Server(config, ready_file, draining, settings.drain_seconds)
    server.run([_shared_listener(host, port)] if processes > 1 else None)
    tracing.close()


def _shared_listener(host: str, port: int) -> socket.socket:
    """A listening socket beside those of the other processes; the kernel deals the connections out."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family, backlog=2048, reuse_port=True)
