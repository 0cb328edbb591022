"""Who may reach what, and what Prometheus and Grafana are given."""

from __future__ import annotations

import json

import pytest
import yaml
from tests.chart.manifests import of_kind, pods
from tests.chart.rendering import CHART, VALUES, Manifest, Render, one, values_names

RUNBOOKS = "https://git.example.com/bedplate/blob/main/docs/operations.md"
"""Where ci/production-values.yaml says that operations.md is read."""


def policies(manifests: list[Manifest]) -> dict[str, Manifest]:
    """By the component that they guard."""
    return {
        policy["spec"]["podSelector"]["matchLabels"]["app.kubernetes.io/component"]: policy
        for policy in of_kind(manifests, "NetworkPolicy")
    }


def components_allowed(policy: Manifest) -> set[str]:
    """The components that are let in by their labels."""
    peers = [peer for rule in policy["spec"]["ingress"] for peer in rule.get("from", ())]
    selectors = [peer["podSelector"]["matchLabels"] for peer in peers if "podSelector" in peer]
    return {each.get("app.kubernetes.io/component", each.get("app")) for each in selectors}


@pytest.mark.parametrize("values", ["tryout", "production", "gpu", "hpa", "keda"])
def test_every_long_lived_pod_has_a_policy(render: Render, values: str) -> None:
    manifests = render([values])
    guarded = set(policies(manifests))
    assert guarded == {pod.component for pod in pods(manifests)} - {"test"}


def test_only_bedplate_reaches_the_bundled_database_and_broker(render: Render) -> None:
    found = policies(render(["tryout"]))
    own = {"api", "inference", "store", "reconciler", "worker-cpu", "worker-gpu", "migrations"}
    assert components_allowed(found["postgresql"]) == components_allowed(found["valkey"]) == own
    # Clients download by signed URLs.
    assert "from" not in found["s3"]["spec"]["ingress"][0]
    with_keda = policies(render(["keda"]))
    assert components_allowed(with_keda["postgresql"]) == own | {"keda-operator"}


def test_only_the_api_reaches_store_nodes_beside_prometheus(render: Render) -> None:
    manifests = render(["production"])
    rules = policies(manifests)["store"]["spec"]["ingress"]
    assert components_allowed(policies(manifests)["store"]) == {"api"}
    assert rules[1]["from"] == [
        {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}
    ]


def test_clients_are_those_who_were_named_and_helm_test(render: Render) -> None:
    found = policies(render(["production"]))
    for name in ("api", "inference"):
        clients, scrapers = found[name]["spec"]["ingress"]
        assert {"namespaceSelector": {"matchLabels": {"recommendations": "true"}}} in clients["from"]
        assert components_allowed(found[name]) == {"test"}
        assert len(scrapers["from"]) == 1
    assert found["migrations"]["spec"]["ingress"] == []


def test_egress_is_dns_one_another_and_what_was_named(render: Render) -> None:
    for name, policy in policies(render(["production"])).items():
        assert policy["spec"]["policyTypes"] == ["Ingress", "Egress"], name
        dns, own, named = policy["spec"]["egress"]
        assert {port["port"] for port in dns["ports"]} == {53}
        assert own["to"][0]["podSelector"]["matchLabels"]["app.kubernetes.io/instance"] == "bedplate"
        assert {port["port"] for port in named["ports"]} == {5432, 5671, 443}
    assert all(
        policy["spec"]["policyTypes"] == ["Ingress"] for policy in policies(render(["tryout"])).values()
    )


@pytest.mark.parametrize("values", values_names())
def test_what_is_off_is_not_there(render: Render, values: str) -> None:
    manifests = render([values])
    kinds = {manifest["kind"] for manifest in manifests}
    given = yaml.safe_load((VALUES / f"{values}-values.yaml").read_text())

    def asked_for(*path: str, default: bool) -> bool:
        value = given
        for name in path:
            value = value.get(name, {})
        return bool(value.get("enabled", default))

    monitored = asked_for("monitoring", "serviceMonitor", default=False)
    assert ("ServiceMonitor" in kinds) == ("PodMonitor" in kinds) == monitored
    assert ("PrometheusRule" in kinds) == asked_for("monitoring", "rules", default=False)
    assert ("Ingress" in kinds) == asked_for("exposure", "ingress", default=False)
    assert ("HTTPRoute" in kinds) == asked_for("exposure", "gateway", default=False)
    assert ("NetworkPolicy" in kinds) == asked_for("networkPolicy", default=True)
    assert ("PodDisruptionBudget" in kinds) == asked_for("podDisruptionBudgets", default=True)


def test_everybody_who_counts_is_scraped(render: Render) -> None:
    manifests = render(["production"])
    monitors = [*of_kind(manifests, "ServiceMonitor"), *of_kind(manifests, "PodMonitor")]
    scraped = {one["spec"]["selector"]["matchLabels"]["app.kubernetes.io/component"] for one in monitors}
    assert scraped == {"api", "inference", "store", "reconciler", "worker-cpu"}
    assert all(one["metadata"]["labels"]["release"] == "prometheus" for one in monitors)


def test_without_an_address_alerts_name_the_runbook_by_its_path_in_the_repository(render: Render) -> None:
    (rules,) = of_kind(render(["tryout"], {"monitoring.rules.enabled": True}), "PrometheusRule")
    (file,) = (CHART / "rules").glob("*.yaml")
    assert rules["spec"] == yaml.safe_load(file.read_text())


def test_all_rules_and_dashboards_of_the_chart_are_installed(render: Render) -> None:
    manifests = render(["production"])
    files = sorted((CHART / "rules").glob("*.yaml"))
    groups = [group for file in files for group in yaml.safe_load(file.read_text())["groups"]]
    for group in groups:
        for rule in group["rules"]:
            anchor = rule["annotations"]["runbook_url"].partition("#")[2]
            rule["annotations"]["runbook_url"] = f"{RUNBOOKS}#{anchor}"
    (rules,) = of_kind(manifests, "PrometheusRule")
    assert rules["spec"]["groups"] == groups
    for file in (CHART / "dashboards").glob("*.json"):
        config = one(manifests, "ConfigMap", f"bedplate-dashboard-{file.stem}")
        assert json.loads(config["data"][file.name]) == json.loads(file.read_text())
        assert config["metadata"]["labels"]["grafana_dashboard"] == "1"
        assert config["metadata"]["annotations"] == {"folder": "Bedplate"}
