"""kombu's filesystem broker, made safe for readers and writers that meet.

kombu's writer creates a file, then locks it, then writes: a message's file and an exchange's file alike.
Whoever reads in between finds it empty and ends with a JSON error. This channel writes messages aside and
renames them, and needs no exchange files: each of our queues has an exchange of its own name.
"""

from __future__ import annotations

import time
import uuid
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from kombu.transport import filesystem
from kombu.utils.json import dumps

_POLLING_SECONDS = 0.05
_LONGEST_WAIT_SECONDS = 0.2


class Channel(filesystem.Channel):
    """Messages appear in the folder whole; routing is by the queue's name."""

    def _queue_bind(self, exchange: str, routing_key: str, pattern: str, queue: str) -> None:
        return None

    def get_table(self, exchange: str) -> list[Any]:
        return [filesystem.exchange_queue_t(exchange, "", exchange)]

    # mypy: kombu's own signatures disagree with one another.
    def _put(self, queue: str, payload: dict[str, Any], **kwargs: Any) -> None:  # type: ignore[override]
        folder = Path(self.data_folder_out)
        # Readers take files in the order of their names; they ignore what does not end in the queue's name.
        name = f"{time.time_ns():020d}_{uuid.uuid4()}"
        aside = folder / f"{name}.writing"
        text = dumps(payload)  # type: ignore[no-untyped-call]  # kombu is typed in part
        aside.write_bytes(text.encode())
        aside.replace(folder / f"{name}.{queue}.msg")


class Transport(filesystem.Transport):
    Channel = Channel

    def drain_events(self, connection: Any, timeout: float | None = None, **kwargs: Any) -> Any:
        # Celery waits two seconds for a message before it looks whether it has been told to stop.
        wait_seconds = min(timeout or _LONGEST_WAIT_SECONDS, _LONGEST_WAIT_SECONDS)
        return super().drain_events(connection, timeout=wait_seconds, **kwargs)  # type: ignore[no-untyped-call]


def broker_configuration(url: str) -> dict[str, Any]:
    """Celery's settings for a broker URL; the folders of a filesystem broker are made."""
    if not url.startswith("filesystem:"):
        return {"broker_url": url}
    folder = Path(urlsplit(url).path)
    folders = {name: folder / name for name in ("queue", "processed")}
    for path in folders.values():
        path.mkdir(parents=True, exist_ok=True)
    return {
        # A URL with a scheme would choose kombu's own transport.
        "broker_url": "localhost",
        "broker_transport": f"{__name__}:Transport",
        "broker_transport_options": {
            "data_folder_in": str(folders["queue"]),
            "data_folder_out": str(folders["queue"]),
            # Taken messages pass through this folder; the default is the machine's /tmp, another file system.
            "store_processed": True,
            "processed_folder": str(folders["processed"]),
            "polling_interval": _POLLING_SECONDS,
        },
    }


def sweep_processed(url: str, older_than_seconds: float) -> int:
    """Delete the messages a filesystem broker has handed out; how many. Nothing for other brokers."""
    if not url.startswith("filesystem:"):
        return 0
    horizon = time.time() - older_than_seconds
    swept = 0
    for path in (Path(urlsplit(url).path) / "processed").glob("*.msg"):
        if path.stat().st_ctime < horizon:
            path.unlink(missing_ok=True)
            swept += 1
    return swept
