"""The Celery application: it carries partition ids, nothing more; the ledger is the truth."""

from __future__ import annotations

from typing import Any

from celery import Celery

from bedplate_workers.broker import QueueType, broker_configuration

_CONFIRM_SECONDS = 10


def create_app(
    broker_url: str, *, queue_type: QueueType = "quorum", visibility_timeout_seconds: float = 3600
) -> Celery:
    """A Celery application on this broker, with no task registered: enough to send by name.

    The arguments are those of :func:`bedplate_workers.broker.broker_configuration`.
    """
    app = Celery("bedplate", set_as_current=False)
    app.conf.update(
        task_default_queue="cpu",
        task_ignore_result=True,
        # With early ones a worker would hold a second message while it is busy, for as long as that takes.
        task_acks_late=True,
        # A killed worker's message comes back where the broker can do that; leases do the rest.
        task_reject_on_worker_lost=True,
        # With more, the length of the queue hides the backlog and a long task holds short ones captive.
        worker_prefetch_multiplier=1,
        worker_enable_remote_control=False,
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
        broker_connection_retry_on_startup=True,
        # For ever: a worker that ends because its broker was away for long helps nobody.
        broker_connection_max_retries=None,
        # RabbitMQ closes the channel of a message that is not acknowledged for 30 minutes, or whose queue was
        # deleted. The worker opens another one; the ledger knows what it has done.
        broker_channel_error_retry=True,
        # A worker is silent while it works. TCP's own keepalive finds a broker that is gone.
        broker_heartbeat=0,
        # No task has an ETA; so what Celery makes for them beside quorum queues need not be replicated.
        broker_native_delayed_delivery_queue_type="classic",
        **broker_configuration(
            broker_url, queue_type=queue_type, visibility_timeout_seconds=visibility_timeout_seconds
        ),
    )
    return app


def send_task(app: Celery, name: str, arguments: list[Any], queue: str) -> None:
    """Send a task by name; RabbitMQ has it once this returns."""
    app.send_task(name, args=arguments, queue=queue, confirm_timeout=_CONFIRM_SECONDS)
