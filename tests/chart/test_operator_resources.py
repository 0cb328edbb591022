"""Every custom resource under every values file, against the operators' own definitions."""

from __future__ import annotations

import copy

import pytest
from tests.chart.kubernetes_schemas import CUSTOM_KINDS
from tests.chart.operator_models import MODELS, check
from tests.chart.rendering import Manifest, Render, one, values_names

WITHOUT_DEFINITION = {("gateway.networking.k8s.io/v1", "HTTPRoute")}
"""Of these no package brings a definition."""


@pytest.fixture
def scaled(render: Render) -> Manifest:
    return copy.deepcopy(one(render(["keda"]), "ScaledObject", "bedplate-worker-cpu"))


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
    assert set(MODELS) | WITHOUT_DEFINITION == CUSTOM_KINDS


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
