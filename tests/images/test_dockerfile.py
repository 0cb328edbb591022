"""What the images promise: no root, signals to the process itself, nothing unpinned, no installers."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from tests.images.dockerfile import ROOT, TARGETS, Stage, read_stages

HADOLINT = Path(sys.executable).with_name("hadolint")
LABELS = ("title", "description", "vendor", "licenses", "version", "revision", "created")
COMMANDS = {
    "api": "bedplate_services.api",
    "inference": "bedplate_services.inference",
    "worker-cpu": "bedplate_workers",
    "worker-gpu": "bedplate_workers",
}
LOCKS = {"api": "api", "inference": "cpu", "worker-cpu": "cpu", "worker-gpu": "gpu"}


@pytest.fixture(scope="module")
def stages() -> dict[str, Stage]:
    return read_stages()


@pytest.fixture(params=TARGETS)
def target(request: pytest.FixtureRequest, stages: dict[str, Stage]) -> Stage:
    return stages[request.param]


def test_hadolint_finds_nothing() -> None:
    command = [str(HADOLINT), "--failure-threshold=style", "--disable-ignore-pragma", "Dockerfile"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_hadolint_would_find_something() -> None:
    bad = "FROM debian\nRUN apt-get install gcc\n"
    done = subprocess.run([HADOLINT, "-"], input=bad, capture_output=True, text=True)
    assert done.returncode == 1
    assert "DL3006" in done.stdout  # an image without a tag


def test_every_stage_stands_on_an_image_pinned_by_tag_and_digest(stages: dict[str, Stage]) -> None:
    bases = {stage.base for stage in stages.values()}
    assert [base for base in bases if not re.fullmatch(r"[\w./-]+:[\w.-]+@sha256:[0-9a-f]{64}", base)] == []


def test_every_stage_that_is_built_for_its_own_sake_is_a_target(stages: dict[str, Stage]) -> None:
    commanded = {name for name, stage in stages.items() if stage.values("CMD")}
    assert commanded == set(TARGETS)


def test_images_run_as_a_user_without_a_name_or_password(target: Stage) -> None:
    assert target.values("USER") == ["10001:10001"]
    [accounts] = [run for run in target.values("RUN") if "useradd" in run]
    assert "--uid 10001" in accounts
    assert "nologin" in accounts


def test_the_process_itself_gets_the_signals(target: Stage) -> None:
    assert target.words("ENTRYPOINT") == ["python", "-m"]
    assert target.words("CMD") == [COMMANDS[target.name]]


def test_the_command_is_a_module_that_runs(target: Stage) -> None:
    [module] = target.words("CMD")
    assert importlib.util.find_spec(module) is not None


def test_images_carry_their_labels(target: Stage) -> None:
    labels = target.pairs("LABEL")
    assert {f"org.opencontainers.image.{label}" for label in LABELS} <= set(labels)
    assert labels["org.opencontainers.image.title"] == f"bedplate-{target.name}"


def test_images_install_nothing_but_what_their_lock_names(target: Stage, stages: dict[str, Stage]) -> None:
    assert [
        run for run in target.values("RUN") if re.search(r"\b(apt|apk|pip3? install|curl|wget)", run)
    ] == []
    [copied] = target.values("COPY")
    source = re.fullmatch(r"--from=(\S+) /opt/bedplate /opt/bedplate", copied)
    assert source is not None, copied
    install = stages[source[1]].values("RUN")[-1]
    assert f"deploy/install.sh deploy/locks/{LOCKS[target.name]}.txt /opt/bedplate" in install


def test_nothing_is_left_that_installs_packages(target: Stage) -> None:
    assert "pip uninstall --yes --root-user-action=ignore setuptools wheel pip" in target.values("RUN")[0]


def test_what_the_image_writes_lies_where_volumes_are_mounted(target: Stage) -> None:
    environment = target.pairs("ENV")
    assert environment["HOME"] == "/tmp"
    assert environment["PYTHONDONTWRITEBYTECODE"] == "1"
    made = target.values("RUN")[0].split("--mode 0750")[1].split()
    assert {environment["BEDPLATE_CACHE_DIR"], environment["BEDPLATE_SPOOL_DIR"]} <= set(made)


def test_settings_of_the_images_are_settings_that_there_are(target: Stage) -> None:
    documented = set(re.findall(r"^\| `(BEDPLATE_\w+)` \|", (ROOT / "docs/settings.md").read_text(), re.M))
    assert {name for name in target.pairs("ENV") if name.startswith("BEDPLATE_")} <= documented


def test_the_build_context_holds_what_is_copied(stages: dict[str, Stage]) -> None:
    rules = (ROOT / ".dockerignore").read_text().splitlines()
    kept = [rule.removeprefix("!") for rule in rules if rule.startswith("!")]
    assert rules[1] == "*"  # nothing but what is named
    copied = {
        source
        for stage in stages.values()
        for copy in stage.values("COPY")
        if not copy.startswith("--from=")
        for source in copy.split()[:-1]
    }
    for source in copied:
        assert (ROOT / source).exists()
        folder = source.rsplit("/", 1)[0]
        assert source in kept or f"{folder}/*{(ROOT / source).suffix}" in kept, source


def test_the_version_is_that_of_the_distribution(target: Stage) -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert f"VERSION={version}" in target.values("ARG")
