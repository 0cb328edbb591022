"""Values that do not go together are refused, by name and with the mend."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml
from tests.chart.gateway_models import ParentReference
from tests.chart.manifests import of_kind
from tests.chart.operator_models import check
from tests.chart.rendering import CHART, Helm, HelmFailed, Render

PRODUCTION = ["production"]


LET_THROUGH = {"beat", "registry", "console"}
REFUSED: list[tuple[list[str], dict[str, Any], str]] = [
    (["tryout"], {"beat": {"replicas": 1}}, "beat: there is no Celery beat; .* use `reconciler`"),
    (["tryout"], {"registry": {}}, "registry: .* use `api`"),
    (["tryout"], {"console": {}}, "console: there is no console yet"),
    (
        ["tryout"],
        {"database.mode": "external"},
        r"set database.existingSecret to a Secret with registry-url and",
    ),
    (["tryout"], {"broker.mode": "external"}, r"set broker.existingSecret to a Secret with url"),
    (["tryout"], {"objectStore.mode": "external"}, r"set objectStore.existingSecret to .* access-key and"),
    (["tryout"], {"objectStore.mode": "external"}, r"set objectStore.endpoint, such as https://"),
    (
        ["tryout"],
        {"objectStore.endpoint": "http://x"},
        "objectStore.endpoint: .* set objectStore.mode=external",
    ),
    (["tryout"], {"database.existingSecret": "x"}, "database.existingSecret: .* set database.mode=external"),
    (["tryout"], {"broker.type": "amqp"}, "broker.type=amqp: the bundled broker is Valkey; set broker.mode"),
    (["tryout"], {"migrations.mode": "hook"}, "set migrations.mode=job or database.mode=external"),
    (["tryout"], {"migrations.mode": "hook"}, "set migrations.mode=job or objectStore.mode=external"),
    (["tryout"], {"migrations.mode": "hook"}, "set migrations.mode=job or admin.existingSecret"),
    (["tryout"], {"profile": "production"}, "profile=production: set database.mode=external"),
    (["tryout"], {"profile": "production"}, "profile=production: set broker.mode=external"),
    (["tryout"], {"profile": "production"}, "profile=production: set objectStore.mode=external"),
    (["tryout"], {"profile": "production"}, "profile=production: set admin.existingSecret"),
    (PRODUCTION, {"store.existingSecret": ""}, "profile=production: set store.existingSecret"),
    (PRODUCTION, {"api.replicas": 1}, "profile=production: set api.replicas to 2 or more"),
    (PRODUCTION, {"inference.replicas": 1}, "profile=production: set inference.replicas to 2"),
    (PRODUCTION, {"workers.cpu.replicas": 1}, "profile=production: set workers.cpu.replicas to 2"),
    (["other-production"], {"workers.gpu.replicas": 1}, "profile=production: set workers.gpu.replicas to 2"),
    (
        PRODUCTION,
        {"autoscaling.engine": "hpa"},
        "profile=production: set autoscaling.workers.cpu.minReplicas to 2",
    ),
    (
        ["keda-production"],
        {"autoscaling.engine": "hpa", "autoscaling.workers.cpu.minReplicas": 2},
        "profile=production: set autoscaling.workers.gpu.minReplicas to 2",
    ),
    (PRODUCTION, {"store.copies": 1}, "profile=production: set store.copies to 2 or more"),
    (PRODUCTION, {"generatedSecrets.seed": "x" * 40}, "take generatedSecrets.seed out"),
    (
        ["keda-production"],
        {"autoscaling.api.minReplicas": 1},
        "profile=production: set autoscaling.api.minReplicas to 2 or more",
    ),
    (
        ["keda-production"],
        {"autoscaling.keda.source": "postgresql"},
        "set autoscaling.keda.existingSecret to a Secret whose key keda-url",
    ),
    (
        ["keda-production"],
        {"autoscaling.keda.prometheus.serverAddress": ""},
        "set autoscaling.keda.prometheus.serverAddress",
    ),
    (["hpa"], {"autoscaling.workers.gpu.minReplicas": 0}, "0 is for workers with autoscaling.engine=keda"),
    (["keda"], {"autoscaling.api.minReplicas": 0}, "autoscaling.api.minReplicas: 0 is for workers"),
    (["hpa"], {"autoscaling.inference.minReplicas": 9}, "minReplicas 9 is more than maxReplicas 6; lower it"),
    (
        ["tryout"],
        {"workers.cpu.queues": ["cpu"]},
        "nobody takes work from the queue gpu; add it to workers.cpu",
    ),
    (["tryout"], {"workers.cpu.enabled": False}, "nobody takes work from the queue cpu"),
    (["tryout"], {"api.shutdown.gracePeriodSeconds": 29}, r"api.shutdown.*need 30 s .*; raise it or lower"),
    (["tryout"], {"exposure.ingress.enabled": True}, "set exposure.ingress.apiHost, inferenceHost, or both"),
    (["gpu"], {"exposure.gateway.parentRefs": []}, "set exposure.gateway.parentRefs"),
    (
        ["gpu"],
        {"exposure.gateway.apiHost": "inference.bedplate.example.com"},
        "give .*apiHost and .* two names",
    ),
    (PRODUCTION, {"networkPolicy.egress.to": []}, "set networkPolicy.egress.to"),
    (PRODUCTION, {"networkPolicy.metricsFrom": []}, "set networkPolicy.metricsFrom"),
    (
        ["tryout"],
        {"image.digests.console": f"sha256:{'0' * 64}"},
        "image.digests.console: there is no such image",
    ),
    (["tryout"], {"generatedSecrets.seed": "short"}, "generatedSecrets.seed: .* 32 random characters"),
    (
        ["tryout"],
        {"podDefaults.extraEnv": {"BEDPLATE_HOST": "x"}},
        "extraEnv.BEDPLATE_HOST: the chart sets it",
    ),
    (["tryout"], {"api.extraEnv": {"OMP_NUM_THREADS": "2"}}, "extraEnv.OMP_NUM_THREADS: the chart sets it"),
    (
        ["tryout"],
        {"settings": {"BEDPLATE_OBJECTS_URL": "x"}},
        "settings.BEDPLATE_OBJECTS_URL: the chart decides",
    ),
]


def parent_references(**fields: Any) -> dict[str, Any]:
    """Values with one reference to a Gateway."""
    return {"exposure.gateway.parentRefs": [fields]}


AGAINST_THE_SCHEMA: list[tuple[dict[str, Any], str]] = [
    ({"api.repliccas": 3}, "'/api': additional properties 'repliccas' not allowed"),
    ({"databse": {}}, "additional properties 'databse' not allowed"),
    ({"profile": "prod"}, "'/profile': value must be one of 'tryout', 'production'"),
    ({"api.replicas": "3"}, "'/api/replicas': got string, want integer"),
    ({"api.replicas": 0}, "'/api/replicas'"),
    ({"api.resources.requests.memory": "1 GB"}, "'/api/resources/requests/memory'"),
    ({"image.digests.api": "0.1.0"}, "'/image/digests/api'"),
    ({"settings": {"LOG_LEVEL": "INFO"}}, "invalid propertyName 'LOG_LEVEL'"),
    (
        {"podDefaults.extraEnv": [{"name": "A", "value": "b"}]},
        "'/podDefaults/extraEnv': got array, want object",
    ),
    ({"objectStore.bucket": "No_Such"}, "'/objectStore/bucket'"),
    ({"exposure.apiUrl": "bedplate.example.com"}, "'/exposure/apiUrl'"),
    ({"workers.cpu.queues": ["io"]}, "'/workers/cpu/queues/0'"),
    (parent_references(name="public", nameSpace="gateways"), "0': additional properties 'nameSpace' not"),
    (parent_references(namespace="gateways"), "0': missing property 'name'"),
    (parent_references(name=""), "/parentRefs/0/name'"),
    (parent_references(name=7), "/parentRefs/0/name': got number, want string"),
    (parent_references(name="public", namespace="Gateways"), "/parentRefs/0/namespace'"),
    (parent_references(name="public", port="https"), "/parentRefs/0/port': got string, want integer"),
    (parent_references(name="public", port=0), "/parentRefs/0/port'"),
    (parent_references(name="public", sectionName="HTTPS listener"), "/parentRefs/0/sectionName'"),
    (parent_references(name="public", group="Gateway API"), "/parentRefs/0/group'"),
    (parent_references(name="public", kind="a gateway"), "/parentRefs/0/kind'"),
    ({"exposure.gateway.parentRefs": ["public"]}, "/parentRefs/0': got string, want object"),
    ({"exposure.gateway.parentRefs": [{"name": "public"}] * 33}, "'/exposure/gateway/parentRefs'"),
    ({"monitoring.rules.runbookUrl": "runbooks/"}, "'/monitoring/rules/runbookUrl'"),
    ({"monitoring.rules.runbookUrl": "https://x.example/operations#a"}, "'/monitoring/rules/runbookUrl'"),
]


@pytest.mark.parametrize(("values", "sets", "reason"), REFUSED, ids=[reason[:50] for _, _, reason in REFUSED])
def test_what_does_not_go_together_is_refused(
    render: Render, values: list[str], sets: dict[str, Any], reason: str
) -> None:
    with pytest.raises(HelmFailed, match=reason):
        render(values, sets)


@pytest.mark.parametrize(("sets", "reason"), AGAINST_THE_SCHEMA)
def test_the_schema_names_what_it_does_not_know(render: Render, sets: dict[str, Any], reason: str) -> None:
    with pytest.raises(HelmFailed) as refused:
        render(["tryout"], sets)
    assert reason in str(refused.value)


@pytest.mark.parametrize(
    ("values", "sets"),
    [
        (PRODUCTION, {"autoscaling.engine": "hpa", "autoscaling.workers.cpu.minReplicas": 2}),
        (["keda-production"], {"autoscaling.workers.cpu.minReplicas": 0, "workers.cpu.replicas": 1}),
        (PRODUCTION, {"store.copies": 1, "store.replicas": 0}),
        (["other-production"], {"workers.cpu.replicas": 1}),
    ],
    ids=["autoscaled", "workers that KEDA takes away", "no store node", "a pool that is off"],
)
def test_production_asks_for_two_only_of_what_runs(
    render: Render, values: list[str], sets: dict[str, Any]
) -> None:
    assert render(values, sets)


def test_a_reference_to_a_gateway_may_hold_every_field_that_the_gateway_api_knows(render: Render) -> None:
    reference = {
        "group": "gateway.networking.k8s.io",
        "kind": "Gateway",
        "namespace": "gateways",
        "name": "public",
        "sectionName": "https.bedplate",
        "port": 443,
    }
    assert set(reference) == {field.alias for field in ParentReference.model_fields.values()}
    routes = of_kind(render(["gpu"], {"exposure.gateway.parentRefs": [reference]}), "HTTPRoute")
    assert len(routes) == 2
    for route in routes:
        check(route)
        assert route["spec"]["parentRefs"] == [reference]


def test_every_fault_is_told_at_once(render: Render) -> None:
    with pytest.raises(HelmFailed) as refused:
        render(["tryout"], {"profile": "production", "beat": {}, "api.shutdown.gracePeriodSeconds": 1})
    assert str(refused.value).count("\n- ") >= 8


def test_charts_that_hold_this_one_may_put_anything_into_global(render: Render) -> None:
    assert render(["tryout"], {"global": {"anything": {"at": ["all"]}}})


def test_the_schema_is_closed_wherever_the_values_are_not_a_map_of_the_users(helm: Helm) -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())
    values = yaml.safe_load((CHART / "values.yaml").read_text())

    def check(part: dict[str, Any], value: Any, path: str) -> None:
        part = schema["$defs"][part["$ref"].rpartition("/")[2]] if "$ref" in part else part
        if not isinstance(value, dict) or path == "/global":
            return
        if "properties" in part:
            assert part["additionalProperties"] is False, path
            assert set(value) <= set(part["properties"]), f"{path}: the schema lacks a value"
            gone = set(part["properties"]) - set(value)
            assert gone <= (LET_THROUGH if path == "" else set()), f"{path}: the schema has more: {gone}"
            for key, below in value.items():
                check(part["properties"][key], below, f"{path}/{key}")

    check(schema, values, "")
