"""Prometheus metrics of the database: queues, which autoscaling looks at, and how far readers are behind."""

from __future__ import annotations

from collections.abc import Iterator
from wsgiref.simple_server import WSGIServer

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from bedplate_store.database import Database
from bedplate_store.space_lags import reader_lags, space_lags
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


class SpaceCollector(Collector):
    """Asks the database at every scrape what is written, published and open."""

    def __init__(self, database: Database, now: Clock) -> None:
        self._database = database
        self._now = now

    def collect(self) -> Iterator[Metric]:
        with self._database.read() as session:
            spaces = space_lags(session)
            readers, told_seconds = reader_lags(session, spaces, self._now())
        pending = GaugeMetricFamily(
            "bedplate_space_pending_rows", "Written rows that no snapshot holds yet.", labels=["space"]
        )
        published = GaugeMetricFamily(
            "bedplate_space_snapshot", "Number of the newest published snapshot.", labels=["space"]
        )
        by_reader = ["space", "process"]
        opened = GaugeMetricFamily(
            "bedplate_reader_snapshot", "Number of the snapshot a process has open.", labels=by_reader
        )
        behind = GaugeMetricFamily(
            "bedplate_reader_behind_writes", "Writes a process did not show yet.", labels=by_reader
        )
        told = GaugeMetricFamily(
            "bedplate_reader_told_seconds", "Since a process told what it has open.", labels=["process"]
        )
        for key, space in spaces.items():
            pending.add_metric([str(key)], space.pending_rows)
            published.add_metric([str(key)], space.snapshot)
        for reader in readers:
            opened.add_metric([str(reader.space), reader.process], reader.snapshot)
            behind.add_metric([str(reader.space), reader.process], reader.behind_writes)
        for process, seconds in told_seconds.items():
            told.add_metric([process], seconds)
        yield from (pending, published, opened, behind, told)


def serve_metrics(database: Database, now: Clock, *, host: str, port: int) -> WSGIServer:
    """Serve ``/metrics`` from a thread, on a free port where ``port`` is 0; ``server_port`` tells which."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(LedgerCollector(database, now))
    registry.register(SpaceCollector(database, now))
    server, _thread = start_http_server(port, addr=host, registry=registry)
    return server
