"""What `helm install` tells at its end."""

from __future__ import annotations

import re

import pytest
from tests.chart.manifests import pods
from tests.chart.rendering import Helm, Render, value_arguments


@pytest.fixture(scope="module")
def tryout(helm: Helm) -> str:
    """Of an installation with no values."""
    return helm.notes()


@pytest.fixture(scope="module")
def production(helm: Helm) -> str:
    return helm.notes(*value_arguments(["production"]))


def test_they_say_what_to_do_first(tryout: str) -> None:
    assert "port-forward service/bedplate-api 8700:8700" in tryout
    assert "BEDPLATE_URL=http://127.0.0.1:8700" in tryout
    assert "helm test bedplate --namespace bedplate-test" in tryout
    assert "get secret bedplate-admin" in tryout


def test_they_say_what_a_try_out_is_not(tryout: str, production: str) -> None:
    assert "NOT FOR PRODUCTION" in tryout
    assert "NOT FOR PRODUCTION" not in production


def test_in_production_clients_come_by_the_ingress(production: str) -> None:
    assert "BEDPLATE_URL=https://bedplate.example.com" in production
    assert "get secret bedplate-admin" in production
    assert "port-forward" not in production


@pytest.mark.parametrize("values", ["tryout", "gpu", "hpa", "minimal"])
def test_they_name_the_images_that_the_nodes_must_hold(helm: Helm, render: Render, values: str) -> None:
    ours = [pod for pod in pods(render([values])) if pod.ours]
    images = {container["image"] for pod in ours for container in pod.containers}
    notes = helm.notes(*value_arguments([values]))
    for tool in ("kind load docker-image", "minikube image load"):
        (named,) = re.findall(rf"{tool} (.+)", notes)
        assert set(named.split()) == images
    assert "kind load" not in helm.notes(*value_arguments(sets={"image.registry": "registry.example.com"}))


def test_what_clients_are_told_inside_the_cluster_can_be_reached_from_outside(
    tryout: str, render: Render
) -> None:
    """The inference service and signed URLs of the object store."""
    (settings,) = [one["data"] for one in render() if one["kind"] == "ConfigMap"]
    for told in (
        settings["BEDPLATE_INFERENCE_URL"],
        settings["BEDPLATE_OBJECTS_URL"].partition("endpoint=")[2],
    ):
        host, _, port = told.removeprefix("http://").partition(":")
        assert f"port-forward service/{host.partition('.')[0]} {port}:{port}" in tryout
        assert host in tryout.partition("echo 127.0.0.1 ")[2]


def test_alerts_without_links_are_mentioned(helm: Helm, production: str) -> None:
    rules = {"monitoring.rules.enabled": True}
    assert "set monitoring.rules.runbookUrl" in helm.notes(*value_arguments(sets=rules))
    assert "runbookUrl" not in production
