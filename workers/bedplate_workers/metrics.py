"""What workers and the reconciler count, and the port where Prometheus reads it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol
from wsgiref.simple_server import WSGIServer

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server
from prometheus_client.registry import Collector

from bedplate_store.leases import Claim
from bedplate_store.reconciler import Report

_SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800, 3600)
_ROWS = "rows"


class WorkMetrics(Protocol):
    """What a worker counts; small on purpose, so that tests and tools can pass ``NullWorkMetrics``."""

    def begun(self) -> None: ...

    def ended(self, claim: Claim, ending: str, seconds: float) -> None: ...

    def cache(self, cache: str, result: str) -> None: ...

    def fetched(self, cache: str, bytes_: int) -> None: ...

    def object_fault(self, operation: str, reason: str, ending: str) -> None: ...

    def database_retry(self, database: str, reason: str) -> None: ...


class NullWorkMetrics:
    """Counts nothing."""

    def begun(self) -> None:
        return None

    def ended(self, claim: Claim, ending: str, seconds: float) -> None:
        return None

    def cache(self, cache: str, result: str) -> None:
        return None

    def fetched(self, cache: str, bytes_: int) -> None:
        return None

    def object_fault(self, operation: str, reason: str, ending: str) -> None:
        return None

    def database_retry(self, database: str, reason: str) -> None:
        return None


class PrometheusWorkMetrics:
    """Keeps its counts in ``registry``.

    Args:
        stages: (job kind, stage) that this worker does; each is told as 0 before it was done first, so that
            a rate sees the first one.
    """

    def __init__(self, stages: Iterable[tuple[str, str]] = ()) -> None:
        registry = self.registry = _registry()
        by_stage = ("kind", "stage")
        self._partitions = Counter(
            "bedplate_worker_partitions_total",
            "Partitions worked on.",
            (*by_stage, "ending"),
            registry=registry,
        )
        self._seconds = Histogram(
            "bedplate_worker_partition_seconds",
            "Time of a partition, from its lease to its end.",
            by_stage,
            buckets=_SECONDS,
            registry=registry,
        )
        self._rows = Counter(
            "bedplate_worker_rows_total", "Rows of the partitions done.", by_stage, registry=registry
        )
        self._busy = Gauge("bedplate_worker_busy", "1 while a partition is worked on.", registry=registry)
        self._cache = Counter(
            "bedplate_worker_cache_requests_total", "Uses of a cache.", ("cache", "result"), registry=registry
        )
        self._fetched = Counter(
            "bedplate_worker_cache_fetched_bytes_total",
            "Bytes fetched into a cache.",
            ("cache",),
            registry=registry,
        )
        self._object_faults = Counter(
            "bedplate_worker_object_store_faults_total",
            "Failed attempts at the object store: tried again, or given up.",
            ("operation", "reason", "ending"),
            registry=registry,
        )
        self._database_retries = _database_retries("worker", registry)
        for kind, stage in stages:
            for ending in ("done", "failed", "buried"):
                self._partitions.labels(kind, stage, ending)

    def begun(self) -> None:
        self._busy.set(1)

    def ended(self, claim: Claim, ending: str, seconds: float) -> None:
        self._busy.set(0)
        self._partitions.labels(claim.kind, claim.stage, ending).inc()
        self._seconds.labels(claim.kind, claim.stage).observe(seconds)
        if ending == "done" and claim.unit == _ROWS:
            self._rows.labels(claim.kind, claim.stage).inc(claim.units)

    def cache(self, cache: str, result: str) -> None:
        self._cache.labels(cache, result).inc()

    def fetched(self, cache: str, bytes_: int) -> None:
        self._fetched.labels(cache).inc(bytes_)

    def object_fault(self, operation: str, reason: str, ending: str) -> None:
        self._object_faults.labels(operation, reason, ending).inc()

    def database_retry(self, database: str, reason: str) -> None:
        self._database_retries.labels(database, reason).inc()


class ReconcilerMetrics:
    """What the reconciler counts, in ``registry``."""

    def __init__(self) -> None:
        registry = self.registry = _registry()
        self._chores = Counter(
            "bedplate_reconciler_chores_total", "Chores done.", ("chore", "result"), registry=registry
        )
        self._partitions = Counter(
            "bedplate_reconciler_partitions_total",
            "Partitions whose lease expired, that were given up, or whose message was sent again.",
            ("event",),
            registry=registry,
        )
        self._database_retries = _database_retries("reconciler", registry)
        for event in ("expired", "buried", "resent"):
            self._partitions.labels(event)

    def expect(self, chores: Iterable[str]) -> None:
        """Tell the chores of these names as 0 before they were done first."""
        for chore in chores:
            for result in ("done", "failed"):
                self._chores.labels(chore, result)

    def chore(self, name: str, done: bool) -> None:
        self._chores.labels(name, "done" if done else "failed").inc()

    def database_retry(self, database: str, reason: str) -> None:
        self._database_retries.labels(database, reason).inc()

    def reconciled(self, report: Report) -> None:
        self._partitions.labels("expired").inc(report.expired)
        self._partitions.labels("buried").inc(report.buried)
        self._partitions.labels("resent").inc(report.resent)


def serve_metrics(
    registry: CollectorRegistry, collectors: Iterable[Collector] = (), *, host: str, port: int
) -> WSGIServer:
    """Serve ``/metrics`` from a thread, on a free port where ``port`` is 0; ``server_port`` tells which."""
    for collector in collectors:
        registry.register(collector)
    server, _thread = start_http_server(port, addr=host, registry=registry)
    return server


def _database_retries(process: str, registry: CollectorRegistry) -> Counter:
    return Counter(
        f"bedplate_{process}_database_retries_total",
        "Transactions run again because the database had them give way.",
        ("database", "reason"),
        registry=registry,
    )


def _registry() -> CollectorRegistry:
    # Without descriptions collectors are asked at a scrape and not when they are registered.
    return CollectorRegistry(auto_describe=False)
