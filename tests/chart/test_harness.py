"""What renders the chart for all other tests here, on a chart that Helm itself makes."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from tests.chart.rendering import Helm, HelmFailed, one, parse


@pytest.fixture(scope="module")
def sample(helm: Helm, tmp_path_factory: pytest.TempPathFactory) -> Helm:
    folder = tmp_path_factory.mktemp("charts") / "sample"
    helm.run("create", str(folder))
    return Helm(helm.binary, chart=folder, release="sample")


def test_helm_is_version_4(helm: Helm) -> None:
    assert helm.run("version", "--short").startswith("v4.")


def test_values_win_over_files_and_each_combination_is_rendered_once(sample: Helm, tmp_path: Path) -> None:
    values = tmp_path / "three.yaml"
    values.write_text("replicaCount: 3\n")
    from_file = sample.render([values])
    assert one(from_file, "Deployment", "sample")["spec"]["replicas"] == 3
    from_set = sample.render([values], {"replicaCount": 5})
    assert one(from_set, "Deployment", "sample")["spec"]["replicas"] == 5
    values.unlink()
    assert sample.render([values]) is from_file


def test_a_set_value_keeps_its_type(sample: Helm) -> None:
    manifests = sample.render(sets={"ingress.enabled": True, "service.port": 8700})
    assert one(manifests, "Ingress", "sample")
    assert one(manifests, "Service", "sample")["spec"]["ports"][0]["port"] == 8700


def test_what_helm_refuses_is_raised_with_its_words(sample: Helm) -> None:
    refusal = '{{ if .Values.refuse }}{{ fail "mend it" }}{{ end }}'
    (sample.chart / "templates" / "refusal.yaml").write_text(refusal)
    with pytest.raises(HelmFailed, match="mend it"):
        sample.render(sets={"refuse": True})


def test_the_notes_are_what_an_installing_user_reads(sample: Helm) -> None:
    assert "Get the application URL" in sample.notes()


def test_a_key_given_twice_is_an_error() -> None:
    assert parse("a: 1\n---\n---\nb: {c: 2}\n") == [{"a": 1}, {"b": {"c": 2}}]
    with pytest.raises(yaml.YAMLError, match="c is there twice"):
        parse("b:\n  c: 1\n  c: 2\n")


def test_a_missing_manifest_is_named_with_those_there_are() -> None:
    manifests = [{"kind": "Service", "metadata": {"name": "api"}}]
    with pytest.raises(LookupError, match=r"no Service store; there are \['api'\]"):
        one(manifests, "Service", "store")
