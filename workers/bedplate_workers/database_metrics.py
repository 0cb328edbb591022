"""Prometheus metrics of the databases: queues, which autoscaling looks at, what is published, what aliases
point at, and how far readers are behind.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from sqlalchemy.exc import SQLAlchemyError

from bedplate_registry.aliases import list_all
from bedplate_registry.database import Database as RegistryDatabase
from bedplate_store.database import Database
from bedplate_store.space_lags import reader_lags, space_lags
from bedplate_workers.clocks import Clock
from bedplate_workers.logging import get_logger
from bedplate_workers.queues import backlogs

_log = get_logger(__name__)


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
        pending = _by_space("bedplate_space_pending_rows", "Written rows that no snapshot holds yet.")
        oldest = _by_space("bedplate_space_oldest_pending_seconds", "How long the oldest of them has waited.")
        published = _by_space("bedplate_space_snapshot", "Number of the newest published snapshot.")
        published_at = _by_space(
            "bedplate_space_snapshot_timestamp_seconds", "When it was published, in Unix time."
        )
        rows = _by_space("bedplate_space_snapshot_rows", "Rows it has.")
        recall = GaugeMetricFamily(
            "bedplate_space_recall_ratio",
            "Recall of its index, as measured when it was built.",
            labels=["space", "neighbours"],
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
            name = [str(key)]
            pending.add_metric(name, space.pending_rows)
            oldest.add_metric(name, _age(space.oldest_pending_at, self._now()))
            published.add_metric(name, space.snapshot)
            rows.add_metric(name, space.rows)
            if space.published_at is not None:
                published_at.add_metric(name, space.published_at.timestamp())
            for neighbours, ratio in space.recall.items():
                recall.add_metric([*name, str(neighbours)], ratio)
        for reader in readers:
            opened.add_metric([str(reader.space), reader.process], reader.snapshot)
            behind.add_metric([str(reader.space), reader.process], reader.behind_writes)
        for process, seconds in told_seconds.items():
            told.add_metric([process], seconds)
        yield from (pending, oldest, published, published_at, rows, recall, opened, behind, told)


class AliasCollector(Collector):
    """Asks both databases at every scrape what aliases point at."""

    def __init__(self, registry: RegistryDatabase, store: Database) -> None:
        self._registry = registry
        self._store = store

    def collect(self) -> Iterator[Metric]:
        with self._registry.read() as session:
            aliases = list_all(session)
        with self._store.read() as session:
            spaces = space_lags(session)
        version = GaugeMetricFamily(
            "bedplate_alias_version", "Number of the version it points at.", labels=["alias"]
        )
        published_at = GaugeMetricFamily(
            "bedplate_alias_snapshot_timestamp_seconds",
            "When the newest snapshot behind it was published, in Unix time.",
            labels=["alias", "space"],
        )
        for alias in aliases:
            name = f"{alias.foundation}@{alias.alias}"
            version.add_metric([name], alias.version)
            for key, space in spaces.items():
                behind = (key.foundation, key.version) == (alias.foundation, alias.version)
                if behind and space.published_at is not None:
                    published_at.add_metric([name, key.space], space.published_at.timestamp())
        yield from (version, published_at)


def _by_space(name: str, documentation: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, documentation, labels=["space"])


def _age(moment: datetime | None, now: datetime) -> float:
    return 0.0 if moment is None else max(0.0, (now - moment).total_seconds())


def database_collectors(registry: RegistryDatabase, store: Database, now: Clock) -> list[Collector]:
    """All of these; what a database that is away cannot tell is left out of the scrape."""
    collectors = (LedgerCollector(store, now), SpaceCollector(store, now), AliasCollector(registry, store))
    return [_WhileItAnswers(collector) for collector in collectors]


class _WhileItAnswers(Collector):
    """A scrape without these gauges still tells what the process counts, such as its chores that fail."""

    def __init__(self, collector: Collector) -> None:
        self._collector = collector

    def collect(self) -> Iterator[Metric]:
        try:
            families = list(self._collector.collect())
        except SQLAlchemyError as error:
            _log.warning("a database cannot be asked for metrics", reason=str(error))
            return
        yield from families
