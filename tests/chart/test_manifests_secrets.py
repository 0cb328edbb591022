"""No password changes in an upgrade, nor when the chart is installed again over kept Secrets."""

from __future__ import annotations

from pathlib import Path

from tests.chart.api_server import Secrets, api_server
from tests.chart.manifests import of_kind
from tests.chart.rendering import NEWEST, Helm, Manifest, parse, value_arguments

SEED = "one-text-of-more-than-thirty-two-characters"


def secrets_of(helm: Helm, kubeconfig: Path, *arguments: str) -> dict[str, dict[str, str]]:
    """Of an upgrade against the cluster of ``kubeconfig``, by name."""
    manifests: list[Manifest] = parse(
        helm.template(
            "--dry-run=server", "--disable-openapi-validation", f"--kubeconfig={kubeconfig}", *arguments
        )
    )
    return {one["metadata"]["name"]: one["stringData"] for one in of_kind(manifests, "Secret")}


def in_cluster(helm: Helm, found: dict[str, dict[str, str]]) -> Secrets:
    return {(helm.namespace, name): data for name, data in found.items()}


def test_an_upgrade_keeps_every_generated_secret(helm: Helm, tmp_path: Path) -> None:
    values = value_arguments(["tryout"], {"store.replicas": 1})
    with api_server({}, tmp_path, NEWEST) as empty:
        installed = secrets_of(helm, empty, *values)
        assert secrets_of(helm, empty, *values) != installed, "they are drawn"
    with api_server(in_cluster(helm, installed), tmp_path, NEWEST) as cluster:
        assert secrets_of(helm, cluster, *values) == installed
        # A seed that comes later does not change them either.
        seeded = value_arguments(["tryout"], {"store.replicas": 1, "generatedSecrets.seed": SEED})
        assert secrets_of(helm, cluster, *seeded) == installed


def test_what_is_new_is_drawn_beside_what_is_there(helm: Helm, tmp_path: Path) -> None:
    with api_server({}, tmp_path, NEWEST) as empty:
        installed = secrets_of(helm, empty, *value_arguments(["tryout"]))
    with api_server(in_cluster(helm, installed), tmp_path, NEWEST) as cluster:
        upgraded = secrets_of(helm, cluster, *value_arguments(["tryout"], {"store.replicas": 2}))
    shards = upgraded.pop("bedplate-shards")
    assert len(shards["shard-secret"]) == 40
    assert upgraded == installed


def test_another_namespace_has_passwords_of_its_own(helm: Helm, tmp_path: Path) -> None:
    values = value_arguments(["tryout"])
    with api_server({}, tmp_path, NEWEST) as empty:
        installed = secrets_of(helm, empty, *values)
    elsewhere: Secrets = {("elsewhere", name): data for name, data in installed.items()}
    with api_server(elsewhere, tmp_path, NEWEST) as cluster:
        upgraded = secrets_of(helm, cluster, *values)
    assert all(upgraded[name] != data for name, data in installed.items())
