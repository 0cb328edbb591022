"""Layer 1: Helm's own linter, and what values.schema.json refuses."""

from __future__ import annotations

import re
from typing import Any

import pytest
from tests.chart.rendering import KUBERNETES_VERSIONS, NEWEST, Helm, HelmFailed, Render, values_names
from tests.chart.rendering import value_arguments as arguments
from tests.chart.values_schema import (
    Names,
    ValuesSchema,
    choices,
    default_values,
    read_schema,
    value_at,
    values_of,
    values_under,
    with_value,
)

OPEN = {
    ("global",),
    ("settings",),
    ("image", "digests"),
    ("serviceAccount", "annotations"),
}
"""Mappings that take any name, beside those of ``OPEN_NAMES`` wherever they stand."""
KUBERNETES_CHOICES = {("image", "pullPolicy"), ("api", "service", "type"), ("inference", "service", "type")}
"""What the chart hands on."""
OPEN_NAMES = {
    "affinity",
    "annotations",
    "containerSecurityContext",
    "extraEnv",
    "labels",
    "nodeSelector",
    "resources",
    "securityContext",
}
"""What is handed to Kubernetes as it is, and checked there."""


@pytest.fixture(scope="module")
def schema() -> ValuesSchema:
    return ValuesSchema()


def handed_on(path: Names) -> bool:
    """Whether what stands *in* the mapping at ``path`` is Kubernetes' business or the user's."""
    return path in OPEN or any(name in OPEN_NAMES for name in path)


PATHS = [path for path, _ in values_of(default_values()) if not handed_on(path[:-1])]
MAPPINGS = [(), *(path for path, value in values_of(default_values()) if isinstance(value, dict))]


@pytest.mark.parametrize("kubernetes", [KUBERNETES_VERSIONS[0], NEWEST])
@pytest.mark.parametrize("values", values_names())
def test_helm_lints_without_a_warning(helm: Helm, values: str, kubernetes: str) -> None:
    assert "0 chart(s) failed" in helm.lint("--kube-version", kubernetes, *arguments([values]))


def test_helm_lints_without_any_values(helm: Helm) -> None:
    assert "0 chart(s) failed" in helm.lint()


def test_the_chart_needs_no_values(render: Render) -> None:
    seed = {"generatedSecrets.seed": "one-text-of-more-than-thirty-two-characters"}
    assert render(sets=seed) == render(["tryout"], seed)


def test_the_defaults_are_what_the_schema_takes(schema: ValuesSchema) -> None:
    assert schema.complaints(default_values()) == []


@pytest.mark.parametrize("path", [path for path in MAPPINGS if not handed_on(path)], ids=".".join)
def test_a_misspelt_value_is_refused_everywhere(schema: ValuesSchema, path: Names) -> None:
    misspelt = with_value(default_values(), (*path, "replicaz"), 2)
    assert [text for text in schema.complaints(misspelt) if "replicaz" in text]


@pytest.mark.parametrize("path", PATHS, ids=".".join)
def test_a_value_of_another_kind_is_refused_everywhere(schema: ValuesSchema, path: Names) -> None:
    # Nothing takes the list; what takes any name takes the mapping.
    for wrong in ([[["wrong"]]], *([] if handed_on(path) else [{"wrong": "wrong"}])):
        assert schema.complaints(with_value(default_values(), path, wrong)), wrong


def test_every_choice_is_taken_by_some_values_file() -> None:
    documents = [values_under(name) for name in values_names()]
    lists = [(path, listed) for path, listed in choices(read_schema()) if path not in KUBERNETES_CHOICES]
    assert len(lists) > 10
    missed = [
        f"{'.'.join(path)}: {choice}"
        for path, listed in lists
        for choice in listed
        if choice not in [value_at(document, path) for document in documents]
    ]
    assert missed == []


def test_every_part_is_on_in_some_values_file_and_off_in_another() -> None:
    documents = [values_under(name) for name in values_names()]
    switches = [path for path, value in values_of(default_values()) if isinstance(value, bool)]
    stuck = [
        ".".join(path)
        for path in switches
        if path[0] != "podDefaults" and {value_at(document, path) for document in documents} != {True, False}
    ]
    assert stuck == []


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"profile": "staging"}, r"profile.*(tryout|production)"),
    ({"api.replicas": -1}, "api.replicas"),
    ({"api.replicas": "2"}, "api.replicas"),
    ({"api.service.port": 70000}, "api.service.port"),
    ({"image.digests": {"api": "latest"}}, "image.digests.api"),
    ({"image.pullPolicy": "Sometimes"}, "image.pullPolicy"),
    ({"objectStore.endpoint": "objects.example.com"}, "objectStore.endpoint"),
    ({"broker.type": "kafka"}, "broker.type"),
    ({"autoscaling.engine": "vpa"}, "autoscaling.engine"),
    ({"migrations.mode": "initContainer"}, "migrations.mode"),
    ({"inference.device": "tpu"}, "inference.device"),
    ({"settings": {"LOG_LEVEL": "DEBUG"}}, "LOG_LEVEL"),
    ({"podDefaults.extraEnv": [{"name": "A", "value": "b"}]}, "podDefaults.extraEnv"),
    ({"api.replicaz": 2}, "replicaz"),
]
"""Values, and what Helm's message names."""


@pytest.mark.parametrize(("sets", "named"), REFUSED, ids=lambda value: str(value)[:60])
def test_helm_refuses_and_names_the_value(render: Render, sets: dict[str, Any], named: str) -> None:
    with pytest.raises(HelmFailed) as refused:
        render(sets=sets)
    text = str(refused.value).replace("/", ".")
    assert re.search(named, text), text
