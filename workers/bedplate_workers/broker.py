"""How Celery is to use each kind of broker: a folder, Redis (or Valkey) or RabbitMQ.

The folder is kombu's filesystem transport, made safe for readers and writers that meet. kombu's writer
creates a file, then locks it, then writes: a message's file and an exchange's file alike. Whoever reads in
between finds it empty and ends with a JSON error. This channel writes messages aside and renames them, and
needs no exchange files: each of our queues has an exchange of its own name.
"""

from __future__ import annotations

import time
import uuid
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from amqp.exceptions import PreconditionFailed
from celery import Celery
from kombu.entity import Exchange, Queue
from kombu.exceptions import OperationalError
from kombu.transport import filesystem
from kombu.utils.json import dumps

from bedplate.errors import Conflict, InvalidRequest
from bedplate_workers.logging import get_logger
from bedplate_workers.queues import QUEUES

QueueType = Literal["quorum", "classic"]
_POLLING_SECONDS = 0.05
_LONGEST_WAIT_SECONDS = 0.2
_RESTORE_SECONDS = 10
_SCHEMES = ("filesystem", "redis", "rediss", "sentinel", "amqp", "amqps")
_log = get_logger(__name__)


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


def broker_configuration(
    url: str, *, queue_type: QueueType, visibility_timeout_seconds: float
) -> dict[str, Any]:
    """Celery's settings for a broker URL; the folders of a filesystem broker are made.

    Args:
        queue_type: of RabbitMQ's queues.
        visibility_timeout_seconds: after which Redis gives a message that nobody acknowledged to another.

    Raises:
        InvalidRequest: no broker has such a URL.
    """
    scheme = urlsplit(url).scheme
    if scheme not in _SCHEMES:
        raise InvalidRequest(
            f"BEDPLATE_BROKER_URL {scheme or url!r} names no broker: write it as redis://host:6379/0, "
            "amqp://user:password@host:5672/vhost or filesystem:///dir."
        )
    if scheme == "filesystem":
        return _folder(Path(urlsplit(url).path))
    arguments = {"x-queue-type": queue_type} if scheme.startswith("amqp") else None
    shared = {"broker_url": url, "task_queues": [_queue(name, arguments) for name in QUEUES]}
    if scheme.startswith("amqp"):
        # A message leaves the outbox only when the broker says that it has it.
        return {**shared, "broker_transport_options": {"confirm_publish": True}}
    # Here, because redis-py imports much, and only who has such a broker needs it.
    from bedplate_workers.redis_acknowledgements import mend_acknowledgements

    mend_acknowledgements()
    return {
        **shared,
        "broker_transport_options": {
            "visibility_timeout": visibility_timeout_seconds,
            # kombu looks every 10 s whether one has passed, and by itself heeds every tenth look alone.
            "unacked_restore_interval": min(_RESTORE_SECONDS, visibility_timeout_seconds),
            "unacked_restore_throttle": 1,
        },
    }


def _folder(folder: Path) -> dict[str, Any]:
    folders = {name: folder / name for name in ("queue", "processed")}
    for path in folders.values():
        path.mkdir(parents=True, exist_ok=True)
    return {
        # A URL with a scheme would choose kombu's own transport.
        "broker_url": "localhost",
        "broker_transport": f"{__name__}:Transport",
        "task_queues": [_queue(name, None) for name in QUEUES],
        "broker_transport_options": {
            "data_folder_in": str(folders["queue"]),
            "data_folder_out": str(folders["queue"]),
            # Taken messages pass through this folder; the default is the machine's /tmp, another file system.
            "store_processed": True,
            "processed_folder": str(folders["processed"]),
            "polling_interval": _POLLING_SECONDS,
        },
    }


def _queue(name: str, arguments: dict[str, Any] | None) -> Queue:
    exchange = Exchange(name)  # type: ignore[no-untyped-call]  # kombu is typed in part
    return Queue(name, exchange, routing_key=name, queue_arguments=arguments)  # type: ignore[no-untyped-call]


def check_queues(app: Celery) -> None:
    """Make the queues, so that what stands in their way is told before a worker waits for messages.

    A broker that is away is no obstacle: Celery waits for it.

    Raises:
        Conflict: RabbitMQ has a queue of this name and of another type.
    """
    try:
        with app.connection_for_write() as connection:
            connection.ensure_connection(max_retries=1, interval_start=0.2, interval_step=0)
            for queue in app.conf.task_queues:
                queue(connection.default_channel).declare()
    except PreconditionFailed as error:
        raise Conflict(
            f"The broker has this queue already, made in another way: {error.reply_text}. Set "
            "BEDPLATE_QUEUE_TYPE to the type it has, or delete the queue: the ledger sends what was in it."
        ) from error
    except (OperationalError, OSError) as error:
        _log.warning("the broker cannot be reached yet", exc_info=error)


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
