"""Running an ASGI application as a process."""

from __future__ import annotations

import uvicorn
from starlette.types import ASGIApp

from bedplate_services.lane.protocol import LaneProtocol
from bedplate_services.logging import configure
from bedplate_services.settings import Settings

GRACE_SECONDS = 10


def run(app: ASGIApp, settings: Settings, host: str, port: int) -> None:
    """Serve until SIGTERM or SIGINT; requests in flight get ``GRACE_SECONDS`` to end.

    uvloop, because uvicorn's asyncio loop loses TCP_NODELAY (MEASURED: p50 0.6 -> 44 ms).
    """
    configure(settings.log_level)
    uvicorn.run(
        app,
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
