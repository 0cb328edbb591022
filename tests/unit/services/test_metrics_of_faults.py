"""Faults of the object store are counted by operation, reason and ending."""

from __future__ import annotations

from bedplate_services.metrics import PrometheusMetrics


def test_faults_are_counted() -> None:
    metrics = PrometheusMetrics("api")
    metrics.object_fault("get", "timeout", "retried")
    text = metrics.render()[0].decode()
    labels = 'ending="retried",operation="get",reason="timeout"'
    assert f"bedplate_api_object_store_faults_total{{{labels}}} 1.0" in text
