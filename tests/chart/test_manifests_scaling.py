"""Autoscalers have bounds, targets that are there, and own the replicas of these."""

from __future__ import annotations

import sqlite3
from typing import Any

import pytest
from tests.chart.manifests import of_kind
from tests.chart.rendering import Manifest, Render, one

from bedplate_workers.queues import queue_of

SCALED = {"bedplate-api", "bedplate-inference", "bedplate-worker-cpu", "bedplate-worker-gpu"}


def scalers(manifests: list[Manifest]) -> dict[str, Manifest]:
    """Autoscalers by the Deployment that they own."""
    kinds = [*of_kind(manifests, "HorizontalPodAutoscaler"), *of_kind(manifests, "ScaledObject")]
    found = {each["spec"]["scaleTargetRef"]["name"]: each for each in kinds}
    assert len(found) == len(kinds), "two autoscalers own one Deployment"
    return found


@pytest.mark.parametrize("values", ["hpa", "keda", "keda-production"])
def test_replicas_belong_to_the_autoscaler(render: Render, values: str) -> None:
    manifests = render([values])
    owners = scalers(manifests)
    assert set(owners) == SCALED
    for deployment in of_kind(manifests, "Deployment"):
        owned = deployment["metadata"]["name"] in owners
        assert ("replicas" not in deployment["spec"]) == owned, deployment["metadata"]["name"]
    for scaler in owners.values():
        spec = scaler["spec"]
        least = spec.get("minReplicas", spec.get("minReplicaCount"))
        most = spec.get("maxReplicas", spec.get("maxReplicaCount"))
        assert 0 <= least <= most
        assert most >= 1


@pytest.mark.parametrize("values", ["tryout", "production", "gpu", "minimal"])
def test_without_an_engine_the_values_say_how_many(render: Render, values: str) -> None:
    manifests = render([values])
    assert scalers(manifests) == {}
    assert all(each["spec"]["replicas"] >= 1 for each in of_kind(manifests, "Deployment"))


def test_nothing_scales_on_memory_or_on_the_length_of_a_list(render: Render) -> None:
    for values in ("hpa", "keda", "keda-production"):
        for scaler in scalers(render([values])).values():
            text = str(scaler["spec"])
            assert "memory" not in text
            assert "redis" not in text
            assert "rabbitmq" not in text


def test_services_scale_on_their_own_containers_cpu(render: Render) -> None:
    """Of the whole pod's, the sealer's idle share would hide the load of the service."""
    for name in ("api", "inference"):
        manifests = render(["hpa"])
        (metric,) = scalers(manifests)[f"bedplate-{name}"]["spec"]["metrics"]
        (container,) = one(manifests, "Deployment", f"bedplate-{name}")["spec"]["template"]["spec"][
            "containers"
        ]
        assert metric["containerResource"]["container"] == container["name"]
        assert "cpu" in container["resources"]["requests"]


def count(query: str, rows: list[tuple[str, str, int]]) -> int:
    """What the query says of (job kind, state of its partition, seconds until it is due)."""
    database = sqlite3.connect(":memory:")
    database.create_function("now", 0, lambda: 1000)
    database.execute("CREATE TABLE jobs (id TEXT, kind TEXT)")
    database.execute("CREATE TABLE job_partitions (job_id TEXT, state TEXT, due_at INTEGER)")
    for number, (kind, state, due_in) in enumerate(rows):
        database.execute("INSERT INTO jobs VALUES (?, ?)", (str(number), kind))
        database.execute("INSERT INTO job_partitions VALUES (?, ?, ?)", (str(number), state, 1000 + due_in))
    return int(database.execute(query).fetchone()[0])


def queries(render: Render, sets: dict[str, Any]) -> dict[str, str]:
    owners = scalers(render(["keda"], sets))
    return {
        queue: owners[f"bedplate-worker-{queue}"]["spec"]["triggers"][0]["metadata"]["query"]
        for queue in ("cpu", "gpu")
        if f"bedplate-worker-{queue}" in owners
    }


def test_keda_counts_what_is_queued_and_running_in_each_queue(render: Render) -> None:
    kinds = ("embed", "compact", "collect", "training_set", "index", "scrub")
    states = [
        ("due", -5),
        ("due", 5),
        ("leased", -5),
        ("leased", 5),
        ("waiting", 0),
        ("done", -5),
        ("dead", -5),
    ]
    rows = [(kind, state, due_in) for kind in kinds for state, due_in in states]
    counted = {("due", -5), ("leased", -5), ("leased", 5)}
    for queue, query in queries(render, {}).items():
        expected = [row for row in rows if queue_of(row[0]) == queue and row[1:] in counted]
        assert count(query, rows) == len(expected) > 0
    (both,) = queries(render, {"workers.gpu.enabled": False}).values()
    assert count(both, rows) == len(kinds) * len(counted)


def test_keda_reads_the_ledger_with_a_url_that_it_understands(render: Render) -> None:
    manifests = render(["keda"])
    (authentication,) = of_kind(manifests, "TriggerAuthentication")
    (target,) = authentication["spec"]["secretTargetRef"]
    assert target["parameter"] == "connection"
    url = one(manifests, "Secret", target["name"])["stringData"][target["key"]]
    assert url.startswith("postgresql://bedplate:")
    for name in ("worker-cpu", "worker-gpu"):
        (trigger,) = scalers(manifests)[f"bedplate-{name}"]["spec"]["triggers"]
        assert trigger["authenticationRef"]["name"] == authentication["metadata"]["name"]


def test_prometheus_is_asked_for_the_same(render: Render) -> None:
    owners = scalers(render(["keda-production"]))
    (trigger,) = owners["bedplate-worker-gpu"]["spec"]["triggers"]
    assert trigger["metadata"]["query"] == (
        'sum(max by (queue) (bedplate_queue_due_partitions{namespace="bedplate-test",queue=~"gpu"} + '
        'bedplate_queue_leased_partitions{namespace="bedplate-test",queue=~"gpu"}))'
    )
    (metric,) = scalers(render(["hpa"]))["bedplate-worker-cpu"]["spec"]["metrics"]
    assert metric["external"]["metric"]["selector"]["matchExpressions"][0]["values"] == ["cpu"]
