"""Rate, errors and duration per route template, in Prometheus' text format."""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping
from typing import Protocol

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
)
from prometheus_client.multiprocess import MultiProcessCollector

_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
SHARED_FOLDER = "PROMETHEUS_MULTIPROC_DIR"
"""prometheus_client's own variable, which it reads when it is imported: the folder in which the processes
that share a port keep their counts. Whichever of them is scraped tells the counts of all."""
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128)


class Metrics(Protocol):
    """What the services count; small on purpose, so that tests and tools can pass ``NullMetrics``."""

    def request(self, method: str, route: str, status: int, seconds: float) -> None: ...

    def rows(self, route: str, count: int, missing: int) -> None:
        """``missing`` of the ``count`` rows asked for have no vector."""
        ...

    def batch(self, requests: int, seconds: float) -> None: ...

    def cache(self, cache: str, result: str, count: int = 1) -> None: ...

    def fetched(self, cache: str, bytes_: int) -> None: ...

    def coverage(self, shares: Mapping[tuple[str, str], float]) -> None:
        """By space and entity; what is not told any more is forgotten."""
        ...

    def models(self, wanted: int, loaded: int) -> None: ...

    def object_fault(self, operation: str, reason: str, ending: str) -> None: ...

    def database_retry(self, database: str, reason: str) -> None: ...

    def render(self) -> tuple[bytes, str]:
        """The metrics as text, and their content type."""
        ...


class NullMetrics:
    """Counts nothing."""

    def request(self, method: str, route: str, status: int, seconds: float) -> None:
        return None

    def rows(self, route: str, count: int, missing: int) -> None:
        return None

    def batch(self, requests: int, seconds: float) -> None:
        return None

    def cache(self, cache: str, result: str, count: int = 1) -> None:
        return None

    def fetched(self, cache: str, bytes_: int) -> None:
        return None

    def coverage(self, shares: Mapping[tuple[str, str], float]) -> None:
        return None

    def models(self, wanted: int, loaded: int) -> None:
        return None

    def object_fault(self, operation: str, reason: str, ending: str) -> None:
        return None

    def database_retry(self, database: str, reason: str) -> None:
        return None

    def render(self) -> tuple[bytes, str]:
        return b"", CONTENT_TYPE_LATEST


class PrometheusMetrics:
    """One registry per application, so that two of them in one process do not collide."""

    def __init__(self, service: str) -> None:
        registry = self.registry = CollectorRegistry()
        name = f"bedplate_{service}_"
        by_route = ("method", "route")
        self._requests = Counter(
            f"{name}requests_total", "Requests answered.", (*by_route, "status"), registry=registry
        )
        self._seconds = Histogram(
            f"{name}request_seconds", "Time to the last byte.", by_route, buckets=_SECONDS, registry=registry
        )
        self._rows = Counter(
            f"{name}rows_total", "Rows asked for on the hot path.", ("route",), registry=registry
        )
        self._missing = Counter(
            f"{name}rows_missing_total", "Rows asked for that have no vector.", ("route",), registry=registry
        )
        self._batch = Histogram(
            f"{name}batch_requests", "Requests in one model pass.", buckets=_SIZES, registry=registry
        )
        self._batch_seconds = Histogram(
            f"{name}batch_seconds", "Time of one model pass.", buckets=_SECONDS, registry=registry
        )
        self._cache = Counter(
            f"{name}cache_requests_total", "Uses of a cache.", ("cache", "result"), registry=registry
        )
        self._fetched = Counter(
            f"{name}cache_fetched_bytes_total", "Bytes fetched into a cache.", ("cache",), registry=registry
        )
        self._coverage = Gauge(
            f"{name}space_coverage_ratio",
            "Share of the entities that have a vector, by a sample.",
            ("space", "entity"),
            registry=registry,
            multiprocess_mode="livemostrecent",
        )
        self._models = Gauge(
            f"{name}models",
            "Models wanted and loaded.",
            ("state",),
            registry=registry,
            multiprocess_mode="livesum",
        )
        self._object_faults = Counter(
            f"{name}object_store_faults_total",
            "Failed attempts at the object store: tried again, or given up.",
            ("operation", "reason", "ending"),
            registry=registry,
        )
        self._database_retries = Counter(
            f"{name}database_retries_total",
            "Transactions run again because the database had them give way.",
            ("database", "reason"),
            registry=registry,
        )
        # Finding the child of some labels costs more than counting in it.
        self._bound_request = functools.cache(self._children_of)
        self._bound_rows = functools.cache(self._rows.labels)

    def _children_of(self, method: str, route: str, status: int) -> tuple[Counter, Histogram]:
        return self._requests.labels(method, route, str(status)), self._seconds.labels(method, route)

    def request(self, method: str, route: str, status: int, seconds: float) -> None:
        requests, durations = self._bound_request(method, route, status)
        requests.inc()
        durations.observe(seconds)

    def rows(self, route: str, count: int, missing: int) -> None:
        self._bound_rows(route).inc(count)
        if missing:
            self._missing.labels(route).inc(missing)

    def batch(self, requests: int, seconds: float) -> None:
        self._batch.observe(requests)
        self._batch_seconds.observe(seconds)

    def cache(self, cache: str, result: str, count: int = 1) -> None:
        self._cache.labels(cache, result).inc(count)

    def fetched(self, cache: str, bytes_: int) -> None:
        self._fetched.labels(cache).inc(bytes_)

    def coverage(self, shares: Mapping[tuple[str, str], float]) -> None:
        self._coverage.clear()
        for (space, entity), share in shares.items():
            self._coverage.labels(space, entity).set(share)

    def models(self, wanted: int, loaded: int) -> None:
        self._models.labels("wanted").set(wanted)
        self._models.labels("loaded").set(loaded)

    def object_fault(self, operation: str, reason: str, ending: str) -> None:
        self._object_faults.labels(operation, reason, ending).inc()

    def database_retry(self, database: str, reason: str) -> None:
        self._database_retries.labels(database, reason).inc()

    def render(self) -> tuple[bytes, str]:
        if SHARED_FOLDER not in os.environ:
            return generate_latest(self.registry), CONTENT_TYPE_LATEST
        registry = CollectorRegistry()
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]  # of all processes, ended ones too
        return generate_latest(registry), CONTENT_TYPE_LATEST
