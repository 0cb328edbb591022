"""``python -m bedplate_workers.reconciler``: the loop that makes the ledger's word happen.

It sends what the outbox holds, ends the leases of dead workers, sends lost messages again, seals the
impression log, and plans compactions and collections. docs/adr/0009 says why it is no celery
beat.
"""

from __future__ import annotations

import argparse
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

from bedplate.databases import exit_if_refused
from bedplate_registry.database import Database as RegistryDatabase
from bedplate_store import jobs, outbox
from bedplate_store import reconciler as ledger_reconciler
from bedplate_store.database import Database
from bedplate_store.reconciler import Report
from bedplate_store.tracing import UNTRACED, Tracing, start_tracing
from bedplate_workers.app import create_app, send_task
from bedplate_workers.broker import sweep_processed
from bedplate_workers.clocks import Clock, system_clock
from bedplate_workers.database_metrics import database_collectors
from bedplate_workers.log_sealing import LogSealer
from bedplate_workers.logging import configure, get_logger
from bedplate_workers.maintenance import plan_compactions, plan_upkeep
from bedplate_workers.metrics import ReconcilerMetrics, serve_metrics
from bedplate_workers.pulse import HeartbeatFile
from bedplate_workers.queues import queue_of
from bedplate_workers.settings import WorkerSettings
from bedplate_workers.storage import open_objects

DRAIN_SECONDS = 0.2
RECONCILE_SECONDS = 2.0
SEAL_SECONDS = 1.0
COMPACT_SECONDS = 5.0
UPKEEP_SECONDS = 60.0
SWEEP_SECONDS = 600.0
_MESSAGES_PER_DRAIN = 100
_LONGEST_PAUSE_SECONDS = 30.0
_log = get_logger(__name__)


@dataclass
class Chore:
    """Something done again and again; after an error it pauses, longer each time, and the others go on."""

    name: str
    every_seconds: float
    do: Callable[[], object]
    first_after_seconds: float = 0.0
    _due: float | None = field(default=None, init=False)
    _errors: int = field(default=0, init=False)

    def run_if_due(self, at: float) -> bool | None:
        """Whether it was done, None: it is not due. ``at`` is a monotonic time in seconds."""
        if self._due is None:
            self._due = at + self.first_after_seconds
        if at < self._due:
            return None
        try:
            self.do()
            self._errors = 0
        except Exception as error:  # noqa: BLE001  # a broker or database that is away must not end the loop
            self._errors += 1
            _log.warning("a chore failed", chore=self.name, errors=self._errors, exc_info=error)
        pause = self.every_seconds if not self._errors else self._backoff()
        self._due = at + pause
        return self._errors == 0

    def _backoff(self) -> float:
        return max(self.every_seconds, min(2.0 ** (self._errors - 1), _LONGEST_PAUSE_SECONDS))


def run(
    chores: Sequence[Chore],
    stop: threading.Event,
    clock: Callable[[], float] = time.monotonic,
    beat: Callable[[], None] = lambda: None,
    told: Callable[[str, bool], None] = lambda _name, _done: None,
) -> None:
    """Do the chores, each in its rhythm, until ``stop`` is set; ``beat`` is called between them, and ``told``
    of each whether it was done.
    """
    while not stop.wait(DRAIN_SECONDS):
        for chore in chores:
            beat()
            if stop.is_set():
                return
            done = chore.run_if_due(clock())
            if done is not None:
                told(chore.name, done)


def drain_outbox(
    database: Database,
    send: Callable[[str, list[Any], str], None],
    now: Clock,
    tracing: Tracing = UNTRACED,
) -> int:
    """Send everything that waits, to the queue of its job's kind and as part of the trace of who asked for
    the job; how many messages.
    """

    def send_routed(task: str, arguments: list[Any]) -> None:
        with database.read() as session:
            job = jobs.of_partition(session, str(arguments[0]))
        with tracing.within(job.origin):
            send(task, arguments, queue_of(job.kind))

    total = 0
    while sent := outbox.drain(database, send_routed, now(), _MESSAGES_PER_DRAIN):
        total += sent
    return total


def reconcile(database: Database, now: Clock, resend_seconds: float) -> Report:
    """One round over the ledger; logged when it found something."""
    report = ledger_reconciler.reconcile(database, now(), resend_seconds)
    if report.expired or report.buried or report.resent:
        _log.info("reconciled", expired=report.expired, buried=report.buried, resent=report.resent)
    return report


def create_chores(
    settings: WorkerSettings, database: Database, now: Clock, metrics: ReconcilerMetrics, tracing: Tracing
) -> list[Chore]:
    """The chores of this process."""
    app = create_app(settings.broker_url, queue_type=settings.queue_type)
    tracing.trace_messages(app, outbox.WORK_TASK)
    sealer = LogSealer(settings.spool_dir, open_objects(settings), database)

    def send(task: str, arguments: list[Any], queue: str) -> None:
        send_task(app, task, arguments, queue)

    return [
        Chore("drain the outbox", DRAIN_SECONDS, lambda: drain_outbox(database, send, now, tracing)),
        Chore(
            "reconcile the ledger",
            RECONCILE_SECONDS,
            lambda: metrics.reconciled(reconcile(database, now, settings.resend_seconds)),
        ),
        Chore("seal the impression log", SEAL_SECONDS, lambda: sealer.seal(now())),
        # Often: at 100,000 rows a second a minute of writes would be as large as many a snapshot.
        Chore("plan compactions", COMPACT_SECONDS, lambda: plan_compactions(database, now())),
        Chore(
            "plan upkeep",
            UPKEEP_SECONDS,
            lambda: plan_upkeep(database, now()),
            first_after_seconds=UPKEEP_SECONDS,
        ),
        Chore(
            "sweep the broker's folder",
            SWEEP_SECONDS,
            lambda: sweep_processed(settings.broker_url, older_than_seconds=SWEEP_SECONDS),
        ),
    ]


def main(arguments: Sequence[str]) -> int:
    """Run the loop until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(prog="python -m bedplate_workers.reconciler", description=__doc__)
    parser.add_argument("--ready-file", type=Path, help="made once the loop runs")
    options = parser.parse_args(arguments)
    settings = WorkerSettings()
    tracing = start_tracing(settings.tracing, "reconciler")
    configure(settings.log_level, tracing.log_processors)
    stop = threading.Event()

    def handle(_number: int, _frame: FrameType | None) -> None:
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, handle)
    metrics = ReconcilerMetrics()
    database = Database(settings.store_database_url, settings.database_limits, metrics.database_retry)
    registry = RegistryDatabase(settings.registry_database_url, settings.database_limits)
    exit_if_refused(database, registry)
    chores = create_chores(settings, database, system_clock, metrics, tracing)
    metrics.expect(chore.name for chore in chores)
    if settings.metrics_port is not None:
        collectors = database_collectors(registry, database, system_clock)
        server = serve_metrics(
            metrics.registry, collectors, host=settings.metrics_host, port=settings.metrics_port
        )
        _log.info("serving metrics", host=settings.metrics_host, port=server.server_port)
    if options.ready_file is not None:
        options.ready_file.touch()
    run(chores, stop, beat=HeartbeatFile(settings.heartbeat_file).beat, told=metrics.chore)
    database.close()
    registry.close()
    tracing.close()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
