"""Every pod keeps the restricted Pod Security standard, and can work under it."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from tests.chart.manifests import PodOf, environment, flag, of_kind, pods, quantity
from tests.chart.rendering import Render, one, values_names

from bedplate_services.serve import GRACE_SECONDS
from bedplate_workers.queues import QUEUES

SERVICES = ("api", "inference", "store")


@pytest.mark.parametrize("values", values_names())
def test_pods_are_restricted(render: Render, values: str) -> None:
    for pod in pods(render([values])):
        security = pod.spec["securityContext"]
        assert security["runAsNonRoot"] is True, pod.name
        assert security["runAsUser"] > 0, pod.name
        assert security["seccompProfile"]["type"] == "RuntimeDefault", pod.name
        assert pod.spec["automountServiceAccountToken"] is False, pod.name
        for forbidden in ("hostNetwork", "hostPID", "hostIPC", "hostUsers"):
            assert forbidden not in pod.spec, pod.name
        for volume in pod.spec.get("volumes", ()):
            kinds = set(volume) - {"name"}
            assert kinds <= {"emptyDir", "ephemeral", "persistentVolumeClaim", "secret"}, pod.name
        for container in pod.containers:
            own = container["securityContext"]
            assert own["allowPrivilegeEscalation"] is False, pod.name
            assert own["readOnlyRootFilesystem"] is True, pod.name
            assert own["capabilities"] == {"drop": ["ALL"]}, pod.name
            assert "privileged" not in own
            assert all("hostPort" not in port for port in container.get("ports", ()))


def test_who_gives_users_to_pods_may_do_so(render: Render) -> None:
    """As OpenShift does: a null takes a default away."""
    none = {f"podDefaults.securityContext.{name}": None for name in ("runAsUser", "runAsGroup", "fsGroup")}
    for pod in pods(render(["production"], none)):
        assert {"runAsUser", "runAsGroup", "fsGroup"} & set(pod.spec["securityContext"]) == set()
        assert pod.spec["securityContext"]["runAsNonRoot"] is True


@pytest.mark.parametrize("values", values_names())
def test_what_is_written_to_is_a_volume_of_its_own(render: Render, values: str) -> None:
    manifests = render([values])
    settings = one(manifests, "ConfigMap", "bedplate-settings")["data"]
    for pod in pods(manifests):
        for container in pod.containers:
            writable = [
                mount["mountPath"] for mount in container["volumeMounts"] if not mount.get("readOnly", False)
            ]
            assert "/tmp" in writable, f"{pod.name}: {container['name']}"
            if "envFrom" not in container:
                continue
            for name in ("BEDPLATE_CACHE_DIR", "BEDPLATE_SPOOL_DIR"):
                folder = settings[name]
                assert any(folder == path or folder.startswith(f"{path}/") for path in writable), pod.name
            heartbeat = environment(container).get("BEDPLATE_HEARTBEAT_FILE", {"value": "/tmp/x"})
            assert heartbeat["value"].startswith("/tmp/")


@pytest.mark.parametrize("values", values_names())
def test_no_container_is_without_requests_and_a_limit_of_memory(render: Render, values: str) -> None:
    for pod in pods(render([values])):
        for container in pod.containers:
            requests, limits = (container["resources"][which] for which in ("requests", "limits"))
            where = f"{pod.name}: {container['name']}"
            assert {"cpu", "memory"} <= set(requests), where
            assert "memory" in limits, where
            for name, asked in requests.items():
                if name in limits:
                    assert quantity(asked) <= quantity(limits[name]), (
                        f"{where} asks for more {name} than allowed"
                    )


@pytest.mark.parametrize("values", values_names())
def test_no_name_stands_twice_in_an_environment(render: Render, values: str) -> None:
    for pod in pods(render([values])):
        names = [container["name"] for container in pod.containers]
        assert len(names) == len(set(names)), pod.name
        for container in pod.containers:
            variables = [entry["name"] for entry in container.get("env", ())]
            assert len(variables) == len(set(variables)), f"{pod.name}: {container['name']}"
            for entry in container.get("env", ()):
                assert len({"value", "valueFrom"} & set(entry)) == 1, f"{pod.name}: {entry['name']}"


def test_a_try_out_asks_for_what_the_readme_says(render: Render) -> None:
    total = {"cpu": Decimal(0), "memory": Decimal(0)}
    for pod in pods(render(["tryout"])):
        if pod.owner["kind"] in ("Deployment", "StatefulSet"):
            running = [
                *pod.spec["containers"],
                *(each for each in pod.spec.get("initContainers", ()) if each.get("restartPolicy")),
            ]
            for name in total:
                requests = [quantity(each["resources"]["requests"][name]) for each in running]
                total[name] += sum(requests) * pod.owner["spec"]["replicas"]
    assert total["cpu"] == Decimal("2.2")
    assert round(total["memory"] / 2**30, 1) == Decimal("4.3")


def our_long_lived(render: Render, values: str) -> list[PodOf]:
    return [
        pod
        for pod in pods(render([values]))
        if pod.ours and pod.owner["kind"] in ("Deployment", "StatefulSet")
    ]


@pytest.mark.parametrize("values", values_names())
def test_every_pod_waits_for_the_schema_and_starts_without_a_shell(render: Render, values: str) -> None:
    for pod in our_long_lived(render, values):
        first = pod.spec["initContainers"][0]
        assert [*first["command"], first["args"][0]] == [
            "python",
            "-m",
            "bedplate_services.migrations",
            "wait",
        ]
        for container in pod.containers:
            assert container["command"][:2] == ["python", "-m"], pod.name


def probe_seconds(probe: dict[str, Any]) -> int:
    return int(probe["periodSeconds"]) * int(probe["failureThreshold"])


@pytest.mark.parametrize("values", values_names())
def test_probes_give_time_to_load_and_little_to_hang(render: Render, values: str) -> None:
    for pod in our_long_lived(render, values):
        (container,) = pod.spec["containers"]
        assert probe_seconds(container["startupProbe"]) >= 300, pod.name
        assert probe_seconds(container["livenessProbe"]) <= 120, pod.name
        if pod.component in SERVICES:
            assert container["startupProbe"]["httpGet"]["path"] == "/readyz"
            assert container["readinessProbe"]["httpGet"]["path"] == "/readyz"
            assert container["livenessProbe"]["httpGet"]["path"] == "/healthz"
        else:
            # `celery inspect ping` would cost seconds of CPU, and a busy worker does not answer it.
            command = container["livenessProbe"]["exec"]["command"]
            assert command[:3] == ["python", "-m", "bedplate_workers.alive"]
            assert "BEDPLATE_HEARTBEAT_FILE" in environment(container)


@pytest.mark.parametrize("values", values_names())
def test_services_go_on_answering_until_every_proxy_knows_that_they_go(render: Render, values: str) -> None:
    for pod in our_long_lived(render, values):
        (container,) = pod.spec["containers"]
        grace = pod.spec["terminationGracePeriodSeconds"]
        if pod.component in SERVICES:
            pause = container["lifecycle"]["preStop"]["sleep"]["seconds"]
            assert pause >= 5
            drain = int(environment(container)["BEDPLATE_DRAIN_SECONDS"]["value"])
            assert grace >= pause + drain + GRACE_SECONDS + 5, pod.name
        elif pod.component.startswith("worker"):
            assert grace >= int(environment(container)["BEDPLATE_STOP_SECONDS"]["value"]) + 30, pod.name


def test_no_service_is_without_a_pod_while_it_is_rolled(render: Render) -> None:
    for component in ("api", "inference"):
        strategy = one(render(["tryout"]), "Deployment", f"bedplate-{component}")["spec"]["strategy"]
        assert strategy["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}
    # But a surplus pod would wait for the GPU of the one that waits for it.
    for component in ("inference", "worker-gpu"):
        strategy = one(render(["gpu"]), "Deployment", f"bedplate-{component}")["spec"]["strategy"]
        assert strategy["rollingUpdate"] == {"maxSurge": 0, "maxUnavailable": 1}


def test_a_store_node_has_a_successor_of_its_name_before_it_goes(render: Render) -> None:
    """And both have addresses of their own."""
    nodes = [pod for pod in pods(render(["production"])) if pod.component == "store"]
    assert len({pod.labels["bedplate/store-node"] for pod in nodes}) == len(nodes) == 4
    for pod in nodes:
        assert pod.owner["spec"]["replicas"] == 2
        assert pod.owner["spec"]["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}
        variables = pod.spec["containers"][0]["env"]
        named = [entry["name"] for entry in variables]
        url = environment(pod.spec["containers"][0])["BEDPLATE_STORE_NODE_URL"]["value"]
        assert url == "http://$(STORE_NODE_IP):8702"
        # Kubernetes fills in only what stands before.
        assert named.index("STORE_NODE_IP") < named.index("BEDPLATE_STORE_NODE_URL")


def test_copies_of_a_store_node_keep_off_one_machine(render: Render) -> None:
    def affinities(sets: dict[str, Any]) -> list[Any]:
        found = [pod for pod in pods(render(["production"], sets)) if pod.component == "store"]
        return [(pod, pod.spec.get("affinity")) for pod in found]

    for pod, affinity in affinities({}):
        (preferred,) = affinity["podAntiAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"]
        term = preferred["podAffinityTerm"]
        assert term["topologyKey"] == "kubernetes.io/hostname"
        assert term["labelSelector"]["matchLabels"].items() <= pod.labels.items()
        assert "bedplate/store-node" in term["labelSelector"]["matchLabels"]
    own: dict[str, Any] = {"nodeAffinity": {}}
    assert all(affinity == own for _, affinity in affinities({"store.affinity": own}))
    assert all(affinity == own for _, affinity in affinities({"podDefaults.affinity": own}))


def test_what_inference_spools_is_sealed_beside_it_and_after_it(render: Render) -> None:
    (pod,) = [each for each in pods(render(["tryout"])) if each.component == "inference"]
    sealer = pod.spec["initContainers"][-1]
    assert sealer["command"] == ["python", "-m", "bedplate_workers.sealer"]
    assert sealer["restartPolicy"] == "Always"  # a sidecar: it is stopped after the service
    (service,) = pod.spec["containers"]
    spools = [
        [mount for mount in each["volumeMounts"] if mount["name"] == "spool"] for each in (sealer, service)
    ]
    assert spools[0] == spools[1] != []


def test_gpus_go_where_they_are_asked_for(render: Render) -> None:
    found = {pod.component: pod for pod in pods(render(["gpu"])) if pod.ours}
    for component, pod in found.items():
        (container,) = pod.spec["containers"]
        asked = container["resources"].get("limits", {}).get("nvidia.com/gpu")
        if component in ("inference", "worker-gpu"):
            assert asked == 1
            assert environment(container)["BEDPLATE_DEVICE"]["value"] == "cuda"
            assert container["image"].startswith("bedplate-worker-gpu:")
            assert pod.spec["runtimeClassName"] == "nvidia"
            assert pod.spec["nodeSelector"] == {"accelerator": "h100"}
            assert pod.spec["tolerations"][0]["key"] == "nvidia.com/gpu"
        else:
            assert asked is None
            assert "runtimeClassName" not in pod.spec
            assert "tolerations" not in pod.spec


def test_the_queues_of_all_pools_are_those_of_the_code(render: Render) -> None:
    for values, expected in (("tryout", {"cpu": "cpu,gpu"}), ("gpu", {"cpu": "cpu", "gpu": "gpu"})):
        taken = {
            pool: flag(pod.spec["containers"][0], "--queues")
            for pod in pods(render([values]))
            for pool in expected
            if pod.component == f"worker-{pool}"
        }
        assert taken == expected
        assert set(",".join(taken.values()).split(",")) == set(QUEUES)


def test_one_reconciler_runs_and_may_meet_another(render: Render) -> None:
    spec = one(render(["hpa"]), "Deployment", "bedplate-reconciler")["spec"]
    assert spec["replicas"] == 1
    assert spec["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}


def test_disruptions_take_one_pod_at_a_time(render: Render) -> None:
    budgets = of_kind(render(["production"]), "PodDisruptionBudget")
    assert {
        budget["spec"]["selector"]["matchLabels"]["app.kubernetes.io/component"] for budget in budgets
    } == {
        "api",
        "inference",
        "store",
        "worker-cpu",
    }
    assert all(budget["spec"]["maxUnavailable"] == 1 for budget in budgets)
    assert of_kind(render(["minimal"]), "PodDisruptionBudget") == []
