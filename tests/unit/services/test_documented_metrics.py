"""docs/metrics.md lists every metric of services and reconciler, with its labels."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from bedplate_services.metrics import PrometheusMetrics
from bedplate_store.database import Database
from bedplate_workers.metrics import LedgerCollector, SpaceCollector

DOCUMENT = Path(__file__).parents[3] / "docs" / "metrics.md"
ROW = re.compile(r"^\| `(bedplate_[\w<>]+)` \| ([^|]*)\| ([^|]+) \|$", re.MULTILINE)


def listed() -> list[tuple[str, list[str]]]:
    rows = ROW.findall(DOCUMENT.read_text())
    return [
        (name, [label.strip() for label in labels.split(",") if label.strip()]) for name, labels, _ in rows
    ]


@pytest.fixture
def database(tmp_path: Path) -> Database:
    made = Database(f"sqlite:///{tmp_path / 'store.sqlite'}")
    made.migrate()
    return made


def described(registry: CollectorRegistry) -> dict[str, str]:
    """Name -> type of each metric, as Prometheus sees them."""
    return {
        family.name + ("_total" if family.type == "counter" else ""): family.type
        for family in registry.collect()
    }


def test_every_metric_is_listed_and_no_other(database: Database) -> None:
    services = described(PrometheusMetrics("api").registry)
    registry = CollectorRegistry(auto_describe=False)
    for collector in (LedgerCollector, SpaceCollector):
        registry.register(collector(database, lambda: datetime(2026, 1, 1, tzinfo=UTC)))
    found = {name.replace("bedplate_api_", "bedplate_<service>_") for name in services}
    assert sorted(name for name, _ in listed()) == sorted(found | described(registry).keys())
    database.close()


def test_the_labels_are_those_of_the_services() -> None:
    metrics = PrometheusMetrics("api")
    made = {
        f"{instrument._name}{'_total' if instrument._type == 'counter' else ''}": list(instrument._labelnames)
        for instrument in vars(metrics).values()
        if hasattr(instrument, "_labelnames")
    }
    told = {name.replace("<service>", "api"): labels for name, labels in listed() if "<service>" in name}
    assert told == made
