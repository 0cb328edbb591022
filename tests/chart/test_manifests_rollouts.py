"""What changes in the manifests when something changes, and what does not."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from tests.chart.manifests import PodOf, environment, of_kind, pods
from tests.chart.rendering import Helm, Manifest, Render, one, parse, value_arguments, values_names

SEED = "one-text-of-more-than-thirty-two-characters"
ALL_ZERO = "sha256:" + "0" * 64


def rolled(before: list[Manifest], after: list[Manifest]) -> set[str]:
    """The components whose pods a change starts anew."""

    def templates(manifests: list[Manifest]) -> dict[str, PodOf]:
        return {pod.component: pod for pod in pods(manifests)}

    olds, news = templates(before), templates(after)
    return {
        component
        for component, new in news.items()
        if (old := olds.get(component)) is None
        or (old.labels, old.annotations, old.spec) != (new.labels, new.annotations, new.spec)
    }


@pytest.mark.parametrize("values", values_names())
def test_two_renders_are_byte_identical(helm: Helm, values: str) -> None:
    arguments = value_arguments(
        [values], {"generatedSecrets.seed": SEED} if "production" not in values else {}
    )
    assert helm.template(*arguments) == helm.template(*arguments)


def test_without_a_seed_only_the_generated_secrets_differ(helm: Helm) -> None:
    def without_secrets(text: str) -> list[Manifest]:
        return [manifest for manifest in parse(text) if manifest["kind"] != "Secret"]

    first, second = (helm.template(*value_arguments(["tryout"])) for _ in range(2))
    assert first != second
    assert without_secrets(first) == without_secrets(second)


def test_generated_secrets_are_long_differ_from_one_another_and_outlive_the_release(render: Render) -> None:
    secrets = of_kind(render(["tryout"], {"store.replicas": 2}), "Secret")
    drawn = {
        (secret["metadata"]["name"], key): secret["stringData"][key]
        for secret in secrets
        for key in ("password", "access-key", "secret-key", "token", "shard-secret")
        if key in secret["stringData"]
    }
    assert len(drawn) == 6
    assert len(set(drawn.values())) == 6
    assert all(len(value) >= 40 for value in drawn.values())
    kept = [*secrets, *of_kind(render(["tryout"]), "PersistentVolumeClaim")]
    assert all(each["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep" for each in kept)
    for other in ({"generatedSecrets.seed": SEED}, {"generatedSecrets.seed": SEED + "x"}):
        assert one(render(["tryout"], other), "Secret", "bedplate-admin")["stringData"] != one(
            secrets, "Secret", "bedplate-admin"
        )


def test_a_changed_setting_starts_the_pods_anew_that_read_it(render: Render) -> None:
    before = render(["production"])
    for sets in (
        {"settings.BEDPLATE_LOG_LEVEL": "DEBUG"},
        {"objectStore.bucket": "another"},
        {"exposure.apiUrl": "https://elsewhere.example.com"},
    ):
        assert rolled(before, render(["production"], sets)) >= {
            "api",
            "inference",
            "store",
            "worker-cpu",
            "reconciler",
        }


def test_what_no_pod_reads_starts_none_anew(render: Render) -> None:
    before = render(["production"])
    for sets in (
        {"monitoring.serviceMonitor.interval": "10s"},
        {"podDisruptionBudgets.enabled": False},
        {"networkPolicy.egress.enabled": False},
        {"api.replicas": 7},
    ):
        assert rolled(before, render(["production"], sets)) == set()


def test_a_new_image_is_another_migration_and_the_same_image_none(render: Render) -> None:
    def job(sets: dict[str, Any]) -> Manifest:
        (found,) = of_kind(render(["tryout"], {"generatedSecrets.seed": SEED, **sets}), "Job")
        return found

    before, same, other = job({}), job({"api.replicas": 3}), job({"image.tag": "0.2.0"})
    assert before == same
    assert before["metadata"]["name"] != other["metadata"]["name"]
    # A Job's template cannot be changed: whatever changes it must change the name.
    nodes = job({"store.replicas": 2})
    assert nodes["spec"]["template"] != before["spec"]["template"]
    assert nodes["metadata"]["name"] != before["metadata"]["name"]
    assert re.fullmatch(r"bedplate-migrations-[0-9a-f]{10}", before["metadata"]["name"])
    assert "annotations" not in before["metadata"], "no hook: it would deadlock with --wait"


def test_a_hook_needs_nothing_that_comes_after_it(render: Render) -> None:
    manifests = render(["production"])
    (job,) = of_kind(manifests, "Job")
    assert job["metadata"]["annotations"]["helm.sh/hook"] == "pre-install,pre-upgrade"
    (pod,) = [each for each in pods(manifests) if each.owner is job]
    assert pod.spec["serviceAccountName"] == "default"
    settings = one(manifests, "ConfigMap", "bedplate-settings")["data"]
    for container in pod.containers:
        assert "envFrom" not in container
        own = environment(container)
        assert {name: own[name]["value"] for name in settings} == settings


def test_the_job_gives_every_store_node_its_share(render: Render) -> None:
    (job,) = of_kind(render(["production"]), "Job")
    (provision,) = job["spec"]["template"]["spec"]["containers"]
    nodes = [
        environment(pod.spec["containers"][0])["BEDPLATE_STORE_NODE"]["value"]
        for pod in pods(render(["production"]))
        if pod.component == "store"
    ]
    assert len(nodes) == 4
    assert provision["args"] == [f"--store-node={node}" for node in nodes]
    (by_hand,) = of_kind(render(["production"], {"store.assignment": "manual"}), "Job")
    assert "args" not in by_hand["spec"]["template"]["spec"]["containers"][0]


def test_a_digest_wins_over_the_tag(render: Render) -> None:
    sets = {"image.digests": {"api": ALL_ZERO}, "image.tag": "9.9.9", "image.registry": "r.example.com/x/"}
    bundled = {"broker.bundled.image.digest": ALL_ZERO}
    images = {
        pod.component: pod.spec["containers"][0]["image"]
        for pod in pods(render(["tryout"], {**sets, **bundled}))
    }
    assert images["api"] == images["reconciler"] == f"r.example.com/x/bedplate-api@{ALL_ZERO}"
    assert images["inference"] == "r.example.com/x/bedplate-inference:9.9.9"
    assert images["valkey"] == f"docker.io/valkey/valkey@{ALL_ZERO}"


def test_environment_is_merged_by_name(render: Render) -> None:
    sets = {
        "podDefaults.extraEnv": {"HTTPS_PROXY": "http://a", "NO_PROXY": "b"},
        "api.extraEnv": {"HTTPS_PROXY": "http://c"},
    }
    found = {pod.component: environment(pod.spec["containers"][0]) for pod in pods(render(["tryout"], sets))}
    assert found["api"]["HTTPS_PROXY"]["value"] == "http://c"
    assert found["api"]["NO_PROXY"]["value"] == "b"
    assert found["worker-cpu"]["HTTPS_PROXY"]["value"] == "http://a"


def test_clients_are_told_where_the_services_are(render: Render) -> None:
    def told(sets: dict[str, Any]) -> tuple[str, str]:
        data = one(render(["tryout"], sets), "ConfigMap", "bedplate-settings")["data"]
        return data["BEDPLATE_PUBLIC_URL"], data["BEDPLATE_INFERENCE_URL"]

    cluster = (
        "http://bedplate-api.bedplate-test.svc:8700",
        "http://bedplate-inference.bedplate-test.svc:8701",
    )
    assert told({}) == cluster
    ingress = {"exposure.ingress": {"enabled": True, "apiHost": "a.example.com", "tlsSecret": "t"}}
    assert told(ingress) == ("https://a.example.com", cluster[1])
    gateway = {
        "exposure.gateway": {
            "enabled": True,
            "apiHost": "a.example.com",
            "inferenceHost": "i.example.com",
            "parentRefs": [{"name": "g"}],
        }
    }
    assert told(gateway) == ("https://a.example.com", "https://i.example.com")
    assert told({**gateway, "exposure.apiUrl": "https://b.example.com/"})[0] == "https://b.example.com"


def test_numbers_stay_numbers_however_large(helm: Helm, tmp_path: Path) -> None:
    """Helm reads numbers of values files as floats, and prints a million of anything as 1e+06."""
    values = tmp_path / "large.yaml"
    values.write_text(
        "settings: {BEDPLATE_PENDING_MIB_MAX: 12345678, BEDPLATE_S3_READ_SECONDS: 0.25}\n"
        "podDefaults: {extraEnv: {LARGE: 100000000}, securityContext: {runAsUser: 1000650000}}\n"
        "broker: {visibilityTimeout: 7200000, bundled: {userId: 1000650000}}\n"
        "workers: {cpu: {grace: 3600000, replicas: 2000000}}\n"
        "migrations: {waitSeconds: 1000000}\n"
    )
    text = helm.template(f"--values={values}")
    assert "e+0" not in text
    manifests = parse(text)
    settings = one(manifests, "ConfigMap", "bedplate-settings")["data"]
    assert settings["BEDPLATE_PENDING_MIB_MAX"] == "12345678"
    assert settings["BEDPLATE_S3_READ_SECONDS"] == "0.25"
    (worker,) = [pod for pod in pods(manifests) if pod.component == "worker-cpu"]
    assert environment(worker.spec["containers"][0])["LARGE"]["value"] == "100000000"
    assert worker.spec["securityContext"]["runAsUser"] == 1000650000
    assert worker.spec["terminationGracePeriodSeconds"] == 3600030


def test_names_that_look_like_numbers_stay_names(helm: Helm) -> None:
    numbered = Helm(helm.binary, release="123")
    secrets = {"admin": "1e3", "database": "42", "broker": "0x1", "objectStore": "7"}
    sets = {f"{name}.existingSecret": secret for name, secret in secrets.items()}
    manifests = numbered.render(["production"], {**sets, "image.pullSecrets": ["123"], "store.replicas": 0})
    for pod in pods(manifests):
        assert pod.labels["app.kubernetes.io/instance"] == "123"
        assert pod.spec["imagePullSecrets"] == [{"name": "123"}]
        for container in pod.containers:
            for entry in container["env"]:
                reference = entry.get("valueFrom", {}).get("secretKeyRef")
                assert reference is None or reference["name"] in secrets.values()
