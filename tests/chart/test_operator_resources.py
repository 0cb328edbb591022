"""Every custom resource under every values file, against its definition."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from tests.chart.kubernetes_schemas import CUSTOM_KINDS
from tests.chart.operator_models import MODELS, check
from tests.chart.rendering import Manifest, Render, one, values_names


@pytest.fixture
def scaled(render: Render) -> Manifest:
    return copy.deepcopy(one(render(["keda"]), "ScaledObject", "bedplate-worker-cpu"))


@pytest.fixture
def route(render: Render) -> Manifest:
    return copy.deepcopy(one(render(["gpu"]), "HTTPRoute", "bedplate-inference"))


@pytest.mark.parametrize("values", values_names())
def test_custom_resources_are_what_their_operators_take(render: Render, values: str) -> None:
    for manifest in render([values]):
        if (manifest["apiVersion"], manifest["kind"]) in MODELS:
            check(manifest)


def test_every_custom_kind_is_rendered_somewhere_and_checked(render: Render) -> None:
    # Else a list of exceptions would outlive what it excepts.
    rendered = {
        (found["apiVersion"], found["kind"]) for values in values_names() for found in render([values])
    }
    assert rendered >= CUSTOM_KINDS
    assert set(MODELS) == CUSTOM_KINDS


def test_a_misspelt_field_of_a_custom_resource_is_refused(scaled: Manifest) -> None:
    check(scaled)
    scaled["spec"]["maxReplicas"] = 4
    with pytest.raises(ValueError, match=r"ScaledObject bedplate-worker-cpu: unknown.* spec\.maxReplicas"):
        check(scaled)


def test_a_missing_field_of_a_custom_resource_is_refused(scaled: Manifest) -> None:
    del scaled["spec"]["scaleTargetRef"]
    with pytest.raises(ValueError, match="scaleTargetRef"):
        check(scaled)


def test_a_number_where_the_operator_wants_text_is_refused(scaled: Manifest) -> None:
    scaled["spec"]["triggers"][0]["metadata"]["targetQueryValue"] = 1
    with pytest.raises(ValueError, match="targetQueryValue"):
        check(scaled)


@pytest.mark.parametrize(
    ("at", "right", "wrong"),
    [
        ("spec", "parentRefs", "parentRef"),
        ("spec", "hostnames", "hosts"),
        ("spec.parentRefs.0", "namespace", "nameSpace"),
        ("spec.rules.0", "backendRefs", "backends"),
        ("spec.rules.0.backendRefs.0", "port", "servicePort"),
    ],
)
def test_a_misspelt_field_of_a_route_is_refused(route: Manifest, at: str, right: str, wrong: str) -> None:
    check(route)
    part: Any = route
    for step in at.split("."):
        part = part[int(step) if step.isdigit() else step]
    part[wrong] = part.pop(right)
    with pytest.raises(ValueError, match=rf"HTTPRoute bedplate-inference: (.|\n)*{at}\.{wrong}\n"):
        check(route)


def test_a_route_whose_port_is_a_name_is_refused(route: Manifest) -> None:
    """As of an Ingress it may be."""
    route["spec"]["rules"][0]["backendRefs"][0]["port"] = "http"
    with pytest.raises(ValueError, match=r"spec\.rules\.0\.backendRefs\.0\.port"):
        check(route)
