"""docs/metrics.md lists every metric of services, workers and reconciler, with its labels."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

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


def listed() -> list[tuple[str, list[str]]]:
    rows = ROW.findall(DOCUMENT.read_text())
    return [
        (name, [label.strip() for label in labels.split(",") if label.strip()]) for name, labels, _ in rows
    ]


@pytest.fixture
def databases(tmp_path: Path) -> Iterator[tuple[RegistryDatabase, Database]]:
    registry = RegistryDatabase(f"sqlite:///{tmp_path / 'registry.sqlite'}")
    store = Database(f"sqlite:///{tmp_path / 'store.sqlite'}")
    for database in (registry, store):
        database.migrate()
    yield registry, store
    registry.close()
    store.close()


def counted() -> list[tuple[str, list[str]]]:
    """Name and labels of what processes count themselves."""
    metrics = (PrometheusMetrics("api"), PrometheusWorkMetrics(), ReconcilerMetrics())
    return [
        (_name(instrument._name, instrument._type), list(instrument._labelnames))
        for one in metrics
        for instrument in vars(one).values()
        if hasattr(instrument, "_labelnames")
    ]


def collected(databases: tuple[RegistryDatabase, Database]) -> list[tuple[str, list[str]]]:
    """Name and labels of what is asked of the databases."""
    families = [
        family
        for collector in database_collectors(*databases, lambda: datetime(2026, 1, 1, tzinfo=UTC))
        for family in collector.collect()
    ]
    return [(_name(family.name, family.type), list(family._labelnames)) for family in families]


def _name(name: str, kind: str) -> str:
    return name.replace("bedplate_api_", "bedplate_<service>_") + ("_total" if kind == "counter" else "")


def test_every_metric_is_listed_with_its_labels_and_no_other(
    databases: tuple[RegistryDatabase, Database],
) -> None:
    assert sorted(listed()) == sorted(counted() + collected(databases))


def test_names_follow_the_conventions_of_prometheus(databases: tuple[RegistryDatabase, Database]) -> None:
    """Base units, no millis, no percent; ``_total`` belongs to counters alone (see ``_name``)."""
    for name, labels in listed():
        assert not re.search(r"_(ms|millis|milliseconds|minutes|percent|mib|kb|count|sum|bucket)(_|$)", name)
        assert set(labels) <= BOUNDED, f"{name} has a label that may grow without bound"
