"""What manifests refer to is there: Secrets, ConfigMaps, volumes, ports, services, selectors."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from tests.chart.manifests import PodOf, of_kind, pods, walk
from tests.chart.rendering import VALUES, Manifest, Render, values_names

pytestmark = pytest.mark.parametrize("values", values_names())
UPSTREAM_KEYS = {"existingSecret", "tlsSecret"}


def named_by_the_user(values: str) -> set[str]:
    """Secrets that the values say are there already."""
    given = yaml.safe_load((VALUES / f"{values}-values.yaml").read_text())
    named = {value for path, value in walk(given) if path and path[-1] in UPSTREAM_KEYS}
    return named | set(given.get("image", {}).get("pullSecrets", ()))


def keys_of(manifest: Manifest) -> set[str]:
    return {key for field in ("data", "stringData") for key in manifest.get(field, {})}


def secret_references(manifest: Manifest) -> set[tuple[str, str | None]]:
    """(name, key) of every Secret; key None: the whole."""
    found: set[tuple[str, str | None]] = set()
    for path, value in walk(manifest):
        last = path[-1] if path else ""
        if last == "secretKeyRef":
            found.add((value["name"], value["key"]))
        elif last == "secret" and isinstance(value, dict) and "secretName" in value:
            found |= {(value["secretName"], item["key"]) for item in value.get("items", [{"key": None}])}
        elif last == "imagePullSecrets":
            found |= {(one["name"], None) for one in value}
        elif last == "secretTargetRef":
            found |= {(one["name"], one["key"]) for one in value}
        elif last == "secretName" and path[-3:-2] == ("tls",):
            found.add((value, None))
    return found


def test_secrets_are_made_here_or_named_by_the_user(render: Render, values: str) -> None:
    manifests = render([values])
    made = {secret["metadata"]["name"]: keys_of(secret) for secret in of_kind(manifests, "Secret")}
    referred = set().union(*(secret_references(manifest) for manifest in manifests))
    given = named_by_the_user(values)
    for name, key in referred:
        assert name in made or name in given, f"nobody makes the Secret {name}"
        assert name in given or key is None or key in made[name], f"the Secret {name} has no key {key}"
    assert given <= {name for name, _ in referred}, "a Secret that the user named is not used"
    assert not set(made) & given
    assert set(made) <= {name for name, _ in referred}, "a Secret is made and not used"


def test_config_maps_volumes_and_accounts_are_there(render: Render, values: str) -> None:
    manifests = render([values])
    names = {
        kind: {manifest["metadata"]["name"] for manifest in of_kind(manifests, kind)}
        for kind in ("ConfigMap", "PersistentVolumeClaim", "ServiceAccount")
    }
    outside = {"default", "recommendations"}  # the namespace's own, and the one of keda-production
    for pod in pods(manifests):
        account = pod.spec["serviceAccountName"]
        assert account in names["ServiceAccount"] | outside, f"{pod.name}: no account {account}"
        for path, value in walk(pod.spec):
            if path and path[-1] in ("configMapRef", "configMapKeyRef"):
                assert value["name"] in names["ConfigMap"], f"{pod.name}: no ConfigMap {value['name']}"
            if path and path[-1] == "claimName":
                assert value in names["PersistentVolumeClaim"], f"{pod.name}: no volume claim {value}"


def test_every_mount_has_its_volume_and_every_volume_a_mount(render: Render, values: str) -> None:
    for pod in pods(render([values])):
        volumes = [volume["name"] for volume in pod.spec.get("volumes", ())]
        assert len(volumes) == len(set(volumes)), pod.name
        mounted = {mount["name"] for one in pod.containers for mount in one.get("volumeMounts", ())}
        assert mounted == set(volumes), pod.name
        for one in pod.containers:
            paths = [mount["mountPath"] for mount in one["volumeMounts"]]
            assert len(paths) == len(set(paths)), f"{pod.name}: a path is mounted twice"


def chosen(selector: dict[str, str], all_pods: list[PodOf]) -> list[PodOf]:
    return [pod for pod in all_pods if selector.items() <= pod.labels.items()]


def test_selectors_choose_their_own_pods_and_no_others(render: Render, values: str) -> None:
    manifests = render([values])
    all_pods = pods(manifests)
    for pod in all_pods:
        if pod.owner["kind"] in ("Deployment", "StatefulSet"):
            selector = pod.owner["spec"]["selector"]["matchLabels"]
            assert [each.name for each in chosen(selector, all_pods)] == [pod.name]
            assert "app.kubernetes.io/version" not in selector
            assert "helm.sh/chart" not in selector
        for constraint in pod.spec.get("topologySpreadConstraints", ()):
            spread = chosen(constraint["labelSelector"]["matchLabels"], all_pods)
            assert spread == [each for each in all_pods if each.component == pod.component]
    selectors: list[tuple[Manifest, dict[str, str]]] = [
        *((one, one["spec"]["selector"]) for one in of_kind(manifests, "Service")),
        *((one, one["spec"]["selector"]["matchLabels"]) for one in of_kind(manifests, "PodDisruptionBudget")),
        *((one, one["spec"]["selector"]["matchLabels"]) for one in of_kind(manifests, "PodMonitor")),
        *((one, one["spec"]["podSelector"]["matchLabels"]) for one in of_kind(manifests, "NetworkPolicy")),
    ]
    for manifest, selector in selectors:
        found = {pod.component for pod in chosen(selector, all_pods)}  # each store node is a pod of its own
        assert len(found) == 1, f"{manifest['kind']} {manifest['metadata']['name']} chooses {found}"


def test_ports_have_names_that_exist(render: Render, values: str) -> None:
    manifests = render([values])
    all_pods = pods(manifests)
    services = {one["metadata"]["name"]: one for one in of_kind(manifests, "Service")}
    for name, service in services.items():
        for pod in chosen(service["spec"]["selector"], all_pods):
            known = {port["name"] for one in pod.containers for port in one.get("ports", ())}
            for port in service["spec"]["ports"]:
                assert port["targetPort"] in known, f"{name}: {pod.name} has no port {port['targetPort']}"
    for pod in all_pods:
        for one in pod.containers:
            known = {port["name"] for port in one.get("ports", ())}
            probes = [one[probe] for probe in one if probe.endswith("Probe")]
            for path, value in walk(probes):
                if path and path[-1] == "port":
                    assert value in known, f"{pod.name}: {one['name']} has no port {value}"
        if pod.owner["kind"] == "StatefulSet":
            assert pod.owner["spec"]["serviceName"] in services
    for monitor in of_kind(manifests, "ServiceMonitor"):
        selector = monitor["spec"]["selector"]["matchLabels"]
        (service,) = [
            one for one in services.values() if selector.items() <= one["metadata"]["labels"].items()
        ]
        ports = {port["name"] for port in service["spec"]["ports"]}
        assert {endpoint["port"] for endpoint in monitor["spec"]["endpoints"]} <= ports
    for policy in of_kind(manifests, "NetworkPolicy"):
        opened = {port["port"] for rule in policy["spec"]["ingress"] for port in rule["ports"]}
        for pod in chosen(policy["spec"]["podSelector"]["matchLabels"], all_pods):
            listening = {port["containerPort"] for one in pod.containers for port in one.get("ports", ())}
            assert opened == listening, f"{policy['metadata']['name']} opens {opened}, and not {listening}"


def backends(manifest: Manifest) -> list[tuple[str, Any]]:
    """(service, port's name or number) behind an Ingress or HTTPRoute."""
    if manifest["kind"] == "Ingress":
        paths = [path for rule in manifest["spec"]["rules"] for path in rule["http"]["paths"]]
        services = [path["backend"]["service"] for path in paths]
        return [(one["name"], one["port"].get("name", one["port"].get("number"))) for one in services]
    references = [one for rule in manifest["spec"]["rules"] for one in rule["backendRefs"]]
    return [(one["name"], one["port"]) for one in references]


def test_routes_lead_to_services(render: Render, values: str) -> None:
    manifests = render([values])
    ports = {
        one["metadata"]["name"]: {port[by] for port in one["spec"]["ports"] for by in ("name", "port")}
        for one in of_kind(manifests, "Service")
    }
    for manifest in [*of_kind(manifests, "Ingress"), *of_kind(manifests, "HTTPRoute")]:
        assert backends(manifest)
        for service, port in backends(manifest):
            assert port in ports[service]


def test_names_are_told_apart_and_short_enough(render: Render, values: str) -> None:
    seen = set()
    for manifest in render([values]):
        name = manifest["metadata"]["name"]
        assert (manifest["kind"], name) not in seen
        seen.add((manifest["kind"], name))
        assert len(name) <= 63
        assert manifest["metadata"]["labels"]["app.kubernetes.io/part-of"] == "bedplate"
