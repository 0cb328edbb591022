"""Handing due work to the workers: the store's outbox, drained right after a commit.

The outbox is the truth; a message that cannot be sent now stays there, and the reconciler sends it.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any, Protocol

from celery import Celery
from kombu.exceptions import OperationalError

from bedplate_services.logging import get_logger
from bedplate_store import jobs, outbox
from bedplate_store.database import Database
from bedplate_store.tracing import UNTRACED, Tracing

_GPU_KINDS = frozenset({"embed"})
_BROKER_SECONDS = 5
_log = get_logger(__name__)


class Dispatcher(Protocol):
    """Called after each commit that may have put work into the ledger."""

    def drain(self, now: datetime) -> None: ...


class NullDispatcher:
    """Leaves all messages to the reconciler."""

    def drain(self, now: datetime) -> None:
        return None


class CeleryDispatcher:
    """Sends task names, never imports the workers.

    Args:
        send: sends one task by name with its arguments to a queue, e.g. from :func:`celery_sender`.
        tracing: each message belongs to the trace of who asked for its job, whoever sends it.
    """

    def __init__(
        self,
        database: Database,
        send: Callable[[str, list[Any], str], None],
        tracing: Tracing = UNTRACED,
    ) -> None:
        self._database = database
        self._send = send
        self._tracing = tracing

    def drain(self, now: datetime) -> None:
        """Send what is due. A broker that cannot be reached is logged: the request has committed and
        stands.
        """
        try:
            outbox.drain(self._database, self._send_routed, now)
        except (OperationalError, OSError) as error:
            _log.warning("the broker cannot be reached; the reconciler sends later", exc_info=error)

    def _send_routed(self, task: str, arguments: list[Any]) -> None:
        with self._database.read() as session:
            job = jobs.of_partition(session, str(arguments[0]))
        with self._tracing.within(job.origin):
            self._send(task, arguments, "gpu" if job.kind in _GPU_KINDS else "cpu")


def celery_sender(broker_url: str, tracing: Tracing = UNTRACED) -> Callable[[str, list[Any], str], None]:
    """A function that sends a task by name to a queue of the broker.

    The queues are made by workers and reconcilers, who know of what type they are to be. A message to one
    that does not exist yet is lost, and the ledger sends it again.
    """
    app = Celery("bedplate", set_as_current=False)
    app.conf.update(
        broker_url=broker_url,
        broker_transport_options={
            # A message leaves the outbox only when RabbitMQ says that it has it.
            "confirm_publish": True,
            # A request waits for Redis no longer.
            "socket_connect_timeout": _BROKER_SECONDS,
            "socket_timeout": _BROKER_SECONDS,
        },
        broker_connection_timeout=_BROKER_SECONDS,
        task_ignore_result=True,
        # A connection that the broker has closed meanwhile is noticed by using it.
        task_publish_retry=True,
        task_publish_retry_policy={"max_retries": 1, "interval_start": 0, "interval_step": 0},
    )
    tracing.trace_messages(app, outbox.WORK_TASK)

    def send(name: str, arguments: list[Any], queue: str) -> None:
        app.send_task(name, args=arguments, queue=queue, declare=[], confirm_timeout=_BROKER_SECONDS)

    return send
