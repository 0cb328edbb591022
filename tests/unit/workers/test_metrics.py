"""What workers count."""

from __future__ import annotations

from typing import Any

from prometheus_client import generate_latest

from bedplate_store.leases import Claim
from bedplate_workers.metrics import PrometheusWorkMetrics


def claim(**members: Any) -> Claim:
    usual = {
        "partition_id": "job-1/0/0",
        "job_id": "job-1",
        "kind": "embed",
        "stage": "embed",
        "ordinal": 0,
        "subject": "core@1/item",
        "team": "core-team",
        "unit": "rows",
        "origin": {},
        "params": {},
        "job_params": {},
        "units": 100,
        "fencing_token": 1,
        "attempt": 1,
    }
    return Claim(**{**usual, **members})


def told(metrics: PrometheusWorkMetrics) -> str:
    return generate_latest(metrics.registry).decode()


def test_what_may_happen_is_told_as_zero_before_it_does() -> None:
    text = told(PrometheusWorkMetrics([("embed", "publish")]))
    for ending in ("done", "failed", "buried"):
        labels = f'ending="{ending}",kind="embed",stage="publish"'
        assert f"bedplate_worker_partitions_total{{{labels}}} 0.0" in text


def test_rows_count_when_they_are_done_and_are_rows() -> None:
    metrics = PrometheusWorkMetrics()
    metrics.ended(claim(), "done", 0.2)
    metrics.ended(claim(), "failed", 0.2)
    metrics.ended(claim(kind="collect", stage="collect", unit="runs", units=1), "done", 0.2)
    text = told(metrics)
    assert 'bedplate_worker_rows_total{kind="embed",stage="embed"} 100.0' in text
    assert 'bedplate_worker_rows_total{kind="collect"' not in text
    assert 'bedplate_worker_partition_seconds_bucket{kind="embed",le="0.25",stage="embed"} 2.0' in text


def test_a_worker_is_busy_from_the_lease_to_the_end() -> None:
    metrics = PrometheusWorkMetrics()
    metrics.begun()
    assert "bedplate_worker_busy 1.0" in told(metrics)
    metrics.ended(claim(), "interrupted", 0.1)
    assert "bedplate_worker_busy 0.0" in told(metrics)
