"""Prometheus metrics of the ledger: what autoscaling looks at."""

from __future__ import annotations

from collections.abc import Iterator
from wsgiref.simple_server import WSGIServer

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from bedplate_store.database import Database
from bedplate_workers.clocks import Clock
from bedplate_workers.queues import backlogs


class LedgerCollector(Collector):
    """Asks the ledger at every scrape."""

    def __init__(self, database: Database, now: Clock) -> None:
        self._database = database
        self._now = now

    def collect(self) -> Iterator[Metric]:
        with self._database.read() as session:
            found = backlogs(session, self._now())
        due = GaugeMetricFamily("bedplate_queue_due_partitions", "Partitions that wait.", labels=["queue"])
        age = GaugeMetricFamily(
            "bedplate_queue_oldest_due_seconds", "How long the oldest of them has waited.", labels=["queue"]
        )
        leased = GaugeMetricFamily(
            "bedplate_queue_leased_partitions", "Partitions worked on.", labels=["queue"]
        )
        for queue, backlog in found.items():
            due.add_metric([queue], backlog.due)
            age.add_metric([queue], backlog.oldest_seconds)
            leased.add_metric([queue], backlog.leased)
        yield from (due, age, leased)


def serve_metrics(database: Database, now: Clock, *, host: str, port: int) -> WSGIServer:
    """Serve ``/metrics`` from a thread, on a free port where ``port`` is 0; ``server_port`` tells which."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(LedgerCollector(database, now))
    server, _thread = start_http_server(port, addr=host, registry=registry)
    return server
