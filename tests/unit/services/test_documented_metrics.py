"""docs/metrics.md lists every metric of services, workers and reconciler, with its kind and labels."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import pytest

from bedplate_registry.database import Database as RegistryDatabase
from bedplate_services.metrics import PrometheusMetrics
from bedplate_store.database import Database
from bedplate_workers.database_metrics import database_collectors
from bedplate_workers.metrics import PrometheusWorkMetrics, ReconcilerMetrics

DOCUMENT = Path(__file__).parents[3] / "docs" / "metrics.md"
BOUNDED = frozenset(
    [
        *(
            "method",
            "route",
            "status",
            "cache",
            "result",
            "space",
            "entity",
            "neighbours",
            "alias",
            "process",
        ),
        *("database", "queue", "state", "operation", "reason", "ending", "kind", "stage", "chore", "event"),
    ]
)
"""Labels whose values are ours: routes, spaces, aliases, processes, and words that the code names."""
ROW = re.compile(r"^\| `(bedplate_[\w<>]+)` \| ([^|]*)\| ([^|]+) \|$", re.MULTILINE)


class Metric(NamedTuple):
    """As it is scraped: the table and the code tell the same of it.

    Attributes:
        kind: ``counter``, ``gauge`` or ``histogram``.
    """

    name: str
    kind: str
    labels: list[str]


def listed() -> list[Metric]:
    rows = ROW.findall(DOCUMENT.read_text())
    return [
        Metric(name, _kind(name, meaning), [label.strip() for label in labels.split(",") if label.strip()])
        for name, labels, meaning in rows
    ]


def _kind(name: str, meaning: str) -> str:
    """Counters are told by their names, histograms by the word; what is neither is a gauge."""
    if meaning.startswith("histogram: "):
        return "histogram"
    return "counter" if name.endswith("_total") else "gauge"


@pytest.fixture
def databases(tmp_path: Path) -> Iterator[tuple[RegistryDatabase, Database]]:
    registry = RegistryDatabase(f"sqlite:///{tmp_path / 'registry.sqlite'}")
    store = Database(f"sqlite:///{tmp_path / 'store.sqlite'}")
    for database in (registry, store):
        database.migrate()
    yield registry, store
    registry.close()
    store.close()


def counted() -> list[Metric]:
    """What processes count themselves."""
    metrics = (PrometheusMetrics("api"), PrometheusWorkMetrics(), ReconcilerMetrics())
    return [
        _metric(instrument._name, instrument._type, instrument._labelnames)
        for one in metrics
        for instrument in vars(one).values()
        if hasattr(instrument, "_labelnames")
    ]


def collected(databases: tuple[RegistryDatabase, Database]) -> list[Metric]:
    """What is asked of the databases."""
    families = [
        family
        for collector in database_collectors(*databases, lambda: datetime(2026, 1, 1, tzinfo=UTC))
        for family in collector.collect()
    ]
    return [_metric(family.name, family.type, family._labelnames) for family in families]


def _metric(name: str, kind: str, labels: Iterable[str]) -> Metric:
    """prometheus_client keeps the names of counters without their ending, whatever they were given."""
    name = name.replace("bedplate_api_", "bedplate_<service>_") + ("_total" if kind == "counter" else "")
    return Metric(name, kind, list(labels))


def test_every_metric_is_listed_with_its_kind_and_labels_and_no_other(
    databases: tuple[RegistryDatabase, Database],
) -> None:
    assert sorted(listed()) == sorted(counted() + collected(databases))
    assert {metric.kind for metric in listed()} == {"counter", "gauge", "histogram"}


def test_names_follow_the_conventions_of_prometheus() -> None:
    """Base units, no millis, no percent. That counters and nothing else end in ``_total`` is shown above."""
    for name, _, labels in listed():
        assert not re.search(r"_(ms|millis|milliseconds|minutes|percent|mib|kb|count|sum|bucket)(_|$)", name)
        assert set(labels) <= BOUNDED, f"{name} has a label that may grow without bound"
