"""The Celery application: it carries partition ids, nothing more; the ledger is the truth."""

from __future__ import annotations

from typing import Any

from celery import Celery
from kombu.entity import Exchange, Queue

from bedplate_workers.broker import broker_configuration
from bedplate_workers.queues import QUEUES


def create_app(broker_url: str) -> Celery:
    """A Celery application on this broker, with no task registered: enough to send by name."""
    app = Celery("bedplate", set_as_current=False)
    app.conf.update(
        task_queues=[_queue(name) for name in QUEUES],
        task_default_queue="cpu",
        task_ignore_result=True,
        # A killed worker's message comes back where the broker can do that; leases do the rest.
        task_acks_late=True,
        task_reject_on_worker_lost=True,
        # With more, the length of the queue hides the backlog and a long task holds short ones captive.
        worker_prefetch_multiplier=1,
        worker_enable_remote_control=False,
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
        broker_connection_retry_on_startup=True,
        **broker_configuration(broker_url),
    )
    return app


def _queue(name: str) -> Queue:
    exchange = Exchange(name)  # type: ignore[no-untyped-call]  # kombu is typed in part
    return Queue(name, exchange, routing_key=name)  # type: ignore[no-untyped-call]  # the same


def send_task(app: Celery, name: str, arguments: list[Any], queue: str) -> None:
    """Send a task by name."""
    app.send_task(name, args=arguments, queue=queue)
