"""``python -m bedplate_workers``: one worker process."""

from __future__ import annotations

import argparse
import os
import socket
import sys
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from celery import Celery, signals
from celery.worker import state

from bedplate.databases import exit_if_refused
from bedplate_modeling.devices import exit_without
from bedplate_store.outbox import WORK_TASK
from bedplate_store.tracing import start_tracing
from bedplate_workers.app import create_app
from bedplate_workers.broker import check_queues
from bedplate_workers.composition import open_workplace
from bedplate_workers.job_kinds import HANDLERS
from bedplate_workers.local_caches import local_caches
from bedplate_workers.logging import configure, get_logger
from bedplate_workers.metrics import PrometheusWorkMetrics, serve_metrics
from bedplate_workers.pulse import HeartbeatFile, WorkerPulse, watch_loop
from bedplate_workers.queues import QUEUES
from bedplate_workers.settings import WorkerSettings
from bedplate_workers.stopping import Stopping
from bedplate_workers.work import Worker

_log = get_logger(__name__)


def main(arguments: Sequence[str]) -> int:
    """Run a worker until SIGTERM or SIGINT; then the partition at hand is finished or goes back to the ledger
    within ``stop_seconds``.
    """
    options = _parse(arguments)
    settings = WorkerSettings()
    tracing = start_tracing(settings.tracing, "worker")
    configure(settings.log_level, tracing.log_processors)
    exit_without(settings.device)
    metrics = PrometheusWorkMetrics(HANDLERS)
    workplace = open_workplace(settings, metrics)
    exit_if_refused(workplace.registry, workplace.store)
    tracing.trace_queries([workplace.registry.engine, workplace.store.engine])
    caches = local_caches(settings.cache_dir, workplace.cache_dir, workplace.now)
    worker = Worker(
        workplace,
        HANDLERS,
        owner=_owner(),
        lease_seconds=settings.lease_seconds,
        stopping=lambda: stopping.told or _told_to_stop(),
        after_work=caches.prune_if_due,
        metrics=metrics,
        tracing=tracing,
    )
    stopping = Stopping(settings.stop_seconds, worker.give_back)
    pulse = WorkerPulse(HeartbeatFile(settings.heartbeat_file))
    app = create_app(
        settings.broker_url,
        queue_type=settings.queue_type,
        visibility_timeout_seconds=settings.visibility_timeout_seconds,
    )
    check_queues(app)
    register(app, worker, pulse)
    tracing.trace_messages(app, WORK_TASK)
    watch_loop(app, pulse)
    if settings.metrics_port is not None:
        server = serve_metrics(metrics.registry, host=settings.metrics_host, port=settings.metrics_port)
        _log.info("serving metrics", host=settings.metrics_host, port=server.server_port)
    if options.ready_file is not None:
        announce_ready(options.ready_file)
    stopping.watch()
    pulse.start()
    try:
        app.worker_main(_celery_arguments(options.queues, settings.log_level))
    finally:
        pulse.close()
        workplace.close()
        tracing.close()
        stopping.ended()
    return 0


def register(app: Celery, worker: Worker, pulse: WorkerPulse) -> None:
    """Register the one task there is."""

    @app.task(name=WORK_TASK)  # type: ignore[untyped-decorator]  # celery ships no types
    def work(partition_id: str) -> None:
        with pulse.working():
            worker.work(partition_id)


def announce_ready(path: Path) -> None:
    """Leave a file at ``path`` once the worker takes messages."""

    def ready(**_sender: Any) -> None:
        path.touch()

    signals.worker_ready.connect(ready, weak=False)


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bedplate_workers", description=__doc__)
    parser.add_argument("--queues", default=",".join(QUEUES), help="comma-separated; default: %(default)s")
    parser.add_argument("--ready-file", type=Path, help="made once the worker takes messages")
    return parser.parse_args(arguments)


def _celery_arguments(queues: str, log_level: str) -> list[str]:
    return [
        "worker",
        f"--queues={queues}",
        # CUDA does not survive a fork, and one process loads the model once; more workers are more processes.
        "--pool=solo",
        # Else a worker takes as many messages as there are cores, and holds what it cannot begin yet.
        "--concurrency=1",
        f"--hostname=bedplate-{uuid.uuid4().hex[:8]}@%h",
        f"--loglevel={log_level}",
        "--without-gossip",
        "--without-mingle",
        "--without-heartbeat",
    ]


def _owner() -> str:
    return f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:8]}"


def _told_to_stop() -> bool:
    return state.should_stop is not None or state.should_terminate is not None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
