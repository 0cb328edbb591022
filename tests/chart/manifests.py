"""Walking through rendered manifests."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from tests.chart.rendering import Manifest

WORKLOADS = ("Deployment", "StatefulSet", "Job", "Pod")
BUNDLED = ("postgresql", "valkey", "s3")
"""Components whose images are not ours."""


@dataclass(frozen=True)
class PodOf:
    """The pod of a workload: its labels, annotations and spec."""

    owner: Manifest
    labels: dict[str, str]
    annotations: dict[str, str]
    spec: dict[str, Any]

    @property
    def name(self) -> str:
        return f"{self.owner['kind']}/{self.owner['metadata']['name']}"

    @property
    def component(self) -> str:
        return self.labels["app.kubernetes.io/component"]

    @property
    def ours(self) -> bool:
        return self.component not in BUNDLED

    @property
    def containers(self) -> list[dict[str, Any]]:
        """Init containers and sidecars too."""
        return [*self.spec.get("initContainers", ()), *self.spec["containers"]]


def pods(manifests: Sequence[Manifest]) -> list[PodOf]:
    found = []
    for manifest in manifests:
        if manifest["kind"] in WORKLOADS:
            template = manifest if manifest["kind"] == "Pod" else manifest["spec"]["template"]
            metadata = template["metadata"]
            found.append(
                PodOf(manifest, metadata["labels"], metadata.get("annotations", {}), template["spec"])
            )
    return found


def of_kind(manifests: Sequence[Manifest], kind: str) -> list[Manifest]:
    return [manifest for manifest in manifests if manifest["kind"] == kind]


def walk(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every value below, with the keys that lead to it."""
    yield path, value
    if isinstance(value, dict):
        for key, below in value.items():
            yield from walk(below, (*path, str(key)))
    elif isinstance(value, list):
        for number, below in enumerate(value):
            yield from walk(below, (*path, str(number)))


def environment(container: dict[str, Any]) -> dict[str, Any]:
    """The entries of ``env`` by name."""
    return {entry["name"]: entry for entry in container.get("env", ())}


def flag(container: dict[str, Any], name: str) -> str:
    """The argument after ``name``."""
    arguments = [*container.get("command", ()), *container.get("args", ())]
    return str(arguments[arguments.index(name) + 1])


_POWERS = {f"{prefix}i": 2 ** (10 * power) for power, prefix in enumerate("KMGT", start=1)}
_UNITS = {
    name: Decimal(size)
    for name, size in {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, **_POWERS}.items()
} | {"m": Decimal("0.001")}


def quantity(text: str | float) -> Decimal:
    """A Kubernetes quantity as a number: ``500m`` is 0.5, ``1Gi`` is 2 ** 30."""
    match = re.fullmatch(r"([0-9.]+)([a-zA-Z]*)", str(text))
    assert match, f"{text!r} is no quantity"
    return Decimal(match[1]) * _UNITS[match[2]]
