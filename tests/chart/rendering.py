"""Rendering the chart with the real Helm, each combination once."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import yaml

CHART = Path(__file__).resolve().parents[2] / "helm" / "bedplate"
VALUES = CHART / "ci"
"""One ``NAME-values.yaml`` for each way of installing that every layer of tests goes through."""
KUBERNETES_VERSIONS = ("1.30", "1.31", "1.32", "1.33", "1.34", "1.35", "1.36", "1.37")
NEWEST = KUBERNETES_VERSIONS[-1]
OPERATORS = (
    "gateway.networking.k8s.io/v1",
    "gateway.networking.k8s.io/v1/HTTPRoute",
    "keda.sh/v1alpha1",
    "keda.sh/v1alpha1/ScaledObject",
    "monitoring.coreos.com/v1",
    "monitoring.coreos.com/v1/PrometheusRule",
    "monitoring.coreos.com/v1/ServiceMonitor",
)
"""API versions that a cluster with every operator the chart can use has; a template may ask for them."""

Manifest = dict[str, Any]


def values_names() -> list[str]:
    """The names of the values files in helm/bedplate/ci, in order."""
    return sorted(path.name.removesuffix("-values.yaml") for path in VALUES.glob("*-values.yaml"))


class HelmFailed(Exception):
    """Helm refused; the text is what it printed."""


class Render(Protocol):
    """What the fixture ``render`` gives."""

    def __call__(
        self,
        values_files: Sequence[str | Path] = (),
        sets: Mapping[str, Any] | None = None,
        kube_version: str = NEWEST,
        profile: str | None = None,
    ) -> list[Manifest]:
        """The manifests, hooks and tests included; kept, so read them and do not change them.

        Args:
            values_files: names of files in helm/bedplate/ci (``"production"``), or paths; later ones win.
            sets: values by path (``{"workers.gpu.enabled": True}``), as ``--set-json``; they win over files.
            kube_version: of the cluster to pretend, such as ``"1.30"``.
            profile: short for ``sets={"profile": ...}``.

        Raises:
            HelmFailed: the schema or a template refused the values.
        """


@dataclass
class Helm:
    """The binary, on one chart."""

    binary: Path
    chart: Path = CHART
    release: str = "bedplate"
    namespace: str = "bedplate-test"
    _rendered: dict[Hashable, list[Manifest]] = field(default_factory=dict)

    def render(
        self,
        values_files: Sequence[str | Path] = (),
        sets: Mapping[str, Any] | None = None,
        kube_version: str = NEWEST,
        profile: str | None = None,
    ) -> list[Manifest]:
        """See :class:`Render`."""
        arguments = (*value_arguments(values_files, sets, profile), "--kube-version", kube_version)
        if arguments not in self._rendered:
            self._rendered[arguments] = parse(self.template(*arguments))
        return self._rendered[arguments]

    def template(self, *arguments: str) -> str:
        """What ``helm template`` prints: all manifests as one text."""
        operators = [f"--api-versions={version}" for version in OPERATORS]
        return self.run("template", self.release, str(self.chart), *operators, *arguments)

    def lint(self, *arguments: str) -> str:
        """What ``helm lint --strict`` prints; it raises on a warning."""
        return self.run("lint", str(self.chart), "--strict", *arguments)

    def notes(self, *arguments: str) -> str:
        """What ``helm install`` would tell its user at the end (NOTES.txt)."""
        text = self.run("install", self.release, str(self.chart), "--dry-run=client", *arguments)
        return text.partition("\nNOTES:\n")[2]

    def run(self, command: str, *arguments: str) -> str:
        done = subprocess.run(
            [self.binary, command, *arguments, "--namespace", self.namespace],
            capture_output=True,
            text=True,
            timeout=60,
        )
        if done.returncode:
            raise HelmFailed(f"{done.stdout}{done.stderr}")
        return done.stdout


def value_arguments(
    values_files: Sequence[str | Path] = (),
    sets: Mapping[str, Any] | None = None,
    profile: str | None = None,
) -> tuple[str, ...]:
    """Helm's arguments for values files and single values."""
    files = [VALUES / f"{file}-values.yaml" if isinstance(file, str) else file for file in values_files]
    chosen = dict(sets or {})
    if profile is not None:
        chosen["profile"] = profile
    return (
        *(f"--values={file}" for file in files),
        *(f"--set-json={path}={json.dumps(value)}" for path, value in chosen.items()),
    )


def parse(text: str) -> list[Manifest]:
    """The documents of a YAML stream, empty ones left out.

    Raises:
        yaml.YAMLError: no YAML, or one key twice in a mapping, which YAML forbids and most parsers let pass.
    """
    return [document for document in yaml.load_all(text, _StrictLoader) if document is not None]


class _StrictLoader(yaml.CSafeLoader):  # type: ignore[misc]  # PyYAML ships no types
    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        keys = [key.value for key, _ in node.value]
        for twice in {key for key in keys if keys.count(key) > 1}:
            raise yaml.constructor.ConstructorError(None, None, f"{twice} is there twice", node.start_mark)
        read: dict[Hashable, Any] = super().construct_mapping(node, deep)
        return read


def one(manifests: Sequence[Manifest], kind: str, name: str) -> Manifest:
    """The manifest of that kind and name.

    Raises:
        LookupError: there is none; what of the kind there is, is named.
    """
    of_kind = {manifest["metadata"]["name"]: manifest for manifest in manifests if manifest["kind"] == kind}
    if name not in of_kind:
        raise LookupError(f"no {kind} {name}; there are {sorted(of_kind)}")
    return of_kind[name]
