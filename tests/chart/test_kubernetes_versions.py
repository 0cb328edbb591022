"""Every way of installing, on every supported version of Kubernetes."""

from __future__ import annotations

from typing import Any

import kubernetes_validate
import pytest
from tests.chart.kubernetes_schemas import check
from tests.chart.rendering import KUBERNETES_VERSIONS, NEWEST, Render, values_names

DEPLOYMENT: dict[str, Any] = {
    "apiVersion": "apps/v1",
    "kind": "Deployment",
    "metadata": {"name": "sample"},
    "spec": {
        "selector": {"matchLabels": {"app": "sample"}},
        "template": {
            "metadata": {"labels": {"app": "sample"}},
            "spec": {"containers": [{"name": "sample", "image": "sample"}]},
        },
    },
}


@pytest.mark.parametrize("kubernetes", KUBERNETES_VERSIONS)
@pytest.mark.parametrize("values", values_names())
def test_manifests_are_what_kubernetes_takes(render: Render, values: str, kubernetes: str) -> None:
    for manifest in render([values], kube_version=kubernetes):
        check(manifest, kubernetes)


def test_a_misspelt_field_is_refused() -> None:
    check(DEPLOYMENT, NEWEST)
    with pytest.raises(ValueError, match=r"Deployment sample.*'replica' was unexpected"):
        check({**DEPLOYMENT, "spec": {**DEPLOYMENT["spec"], "replica": 2}}, NEWEST)


def test_an_api_version_that_was_removed_is_refused() -> None:
    with pytest.raises(ValueError, match="Couldn't find schema for kind CronJob"):
        check({"apiVersion": "batch/v1beta1", "kind": "CronJob", "metadata": {"name": "old"}}, "1.30")


def test_a_kind_of_an_operator_that_nobody_listed_is_refused() -> None:
    with pytest.raises(ValueError, match="Couldn't find schema for kind Certificate"):
        check({"apiVersion": "cert-manager.io/v1", "kind": "Certificate", "metadata": {"name": "c"}}, NEWEST)


def test_a_version_that_the_schemas_do_not_know_yet_is_refused() -> None:
    with pytest.raises(ValueError, match=r"does not support version 1\.99"):
        check(DEPLOYMENT, "1.99")


def test_each_version_has_schemas_of_its_own() -> None:
    # Without them the nearest older version would answer instead.
    known = {version.rpartition(".")[0] for version in kubernetes_validate.utils.all_versions()}
    assert set(KUBERNETES_VERSIONS) <= known
