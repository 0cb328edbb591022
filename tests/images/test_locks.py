"""The locks of the images: whole, by hash, and what pyproject.toml asks for."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from deploy.lock import BUILD, EXTRAS, LOCKS, ROOT, build_requirements
from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

MEND = "run `make locks`"
IMAGE = {"python_version": "3.11", "sys_platform": "linux", "platform_machine": "x86_64"}
"""Where the images' packages are installed."""


@dataclass(frozen=True)
class Pin:
    requirement: Requirement
    hashes: tuple[str, ...]


def read_lock(name: str) -> dict[str, Pin]:
    text = re.sub(r"\\\n", " ", (LOCKS / f"{name}.txt").read_text())
    pins: dict[str, Pin] = {}
    for line in text.splitlines():
        statement = line.partition("#")[0].strip()
        if statement:
            requirement = Requirement(statement.partition(" --hash")[0])
            hashes = tuple(re.findall(r"--hash=sha256:([0-9a-f]{64})(?:\s|$)", statement))
            assert len(hashes) == statement.count("--hash"), statement
            pins[canonicalize_name(requirement.name)] = Pin(requirement, hashes)
    return pins


def asked_for(name: str) -> Iterator[Requirement]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    texts = [*project["dependencies"], *(text for extra in EXTRAS[name] for text in extras[extra])]
    for requirement in map(Requirement, texts):
        if requirement.marker is None or Marker(str(requirement.marker)).evaluate(IMAGE):
            yield requirement


@pytest.mark.parametrize("name", [BUILD, *EXTRAS])
def test_every_package_is_pinned_to_one_version_by_hash(name: str) -> None:
    pins = read_lock(name)
    assert pins
    for pin in pins.values():
        [specifier] = pin.requirement.specifier
        assert specifier.operator == "=="
        assert pin.requirement.url is None
        assert pin.hashes


@pytest.mark.parametrize("name", EXTRAS)
def test_the_lock_is_what_pyproject_asks_for(name: str) -> None:
    pins = read_lock(name)
    for requirement in asked_for(name):
        assert canonicalize_name(requirement.name) in pins, f"{requirement.name}: {MEND}"
        [specifier] = pins[canonicalize_name(requirement.name)].requirement.specifier
        assert requirement.specifier.contains(specifier.version), f"{requirement}: {MEND}"


def test_the_wheel_is_built_with_what_pyproject_asks_for() -> None:
    pins = read_lock(BUILD)
    for requirement in map(Requirement, build_requirements()):
        [specifier] = pins[canonicalize_name(requirement.name)].requirement.specifier
        assert requirement.specifier.contains(specifier.version), f"{requirement}: {MEND}"


def test_no_lock_names_an_index() -> None:
    for name in (BUILD, *EXTRAS):
        assert re.findall(r"://|--(?:extra-)?index|--find-links", (LOCKS / f"{name}.txt").read_text()) == []


def test_images_hold_the_same_versions_of_what_they_share() -> None:
    # What one process writes another reads; a CPU and a CUDA build of one version are the same code.
    locks = {name: read_lock(name) for name in EXTRAS}
    for package, pin in locks["api"].items():
        for name in ("cpu", "gpu"):
            if package in locks[name]:
                assert locks[name][package].requirement.specifier == pin.requirement.specifier, package
    public = {name: str(locks[name]["torch"].requirement.specifier).split("+")[0] for name in ("cpu", "gpu")}
    assert public["cpu"] == public["gpu"]


def test_the_api_image_holds_no_torch_and_only_the_gpu_image_holds_cuda() -> None:
    assert "torch" not in read_lock("api")
    assert "faiss-cpu" in read_lock("api")
    cuda = {name: sorted(p for p in read_lock(name) if p.startswith(("nvidia-", "cuda-"))) for name in EXTRAS}
    assert cuda["api"] == []
    assert cuda["cpu"] == []
    assert cuda["gpu"] != []
    assert str(read_lock("cpu")["torch"].requirement.specifier).endswith("+cpu")
    assert "faiss-cpu" not in read_lock("gpu")
