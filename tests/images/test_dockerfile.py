"""What the images promise: no root, signals to the process itself, nothing unpinned, no installers."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from deploy.lock import BUILD
from tests.images.dockerfile import ROOT, TARGETS, Stage, read_stages

HADOLINT = Path(sys.executable).with_name("hadolint")
LABELS = ("title", "description", "vendor", "licenses", "version", "base.name")
COMMANDS = {
    "api": "bedplate_services.api",
    "inference": "bedplate_services.inference",
    "worker-cpu": "bedplate_workers",
    "worker-gpu": "bedplate_workers",
}
OVERLAID = ("/opt/bedplate/lib", "/opt/bedplate/bin/bedplate")
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
    packages, *itself = target.values("COPY")
    assert packages == f"--from=packages-{LOCKS[target.name]} /opt/bedplate /opt/bedplate"
    lock = f"--require-hashes --requirement deploy/locks/{LOCKS[target.name]}.txt"
    install = stages[f"packages-{LOCKS[target.name]}"].values("RUN")[-1]
    assert install.endswith(f"deploy/install.sh /opt/bedplate {lock}")
    assert itself == [f"--from=bedplate {place} {place}" for place in OVERLAID]
    assert stages["bedplate"].values("RUN")[-1].endswith("/opt/bedplate --no-deps --no-index /dist/*.whl")


def test_packages_are_installed_before_anything_of_ours_is_looked_at(stages: dict[str, Stage]) -> None:
    """A commit that changes no lock changes no layer but the last."""
    for name in LOCKS.values():
        read = " ".join(stages[f"packages-{name}"].values("COPY")).split()
        assert set(read) == {f"deploy/locks/{lock}.txt" for lock in (BUILD, name)} | {"deploy/install.sh"}


def test_pytorch_comes_from_where_the_lock_has_it(stages: dict[str, Stage]) -> None:
    assert stages["packages-cpu"].pairs("ENV") == {"UV_TORCH_BACKEND": "cpu"}
    assert stages["packages-gpu"].pairs("ENV") == {}


def test_nothing_is_left_that_installs_packages(target: Stage) -> None:
    [run] = target.values("RUN")
    assert "pip uninstall --yes --root-user-action=ignore setuptools wheel pip" in run
    assert "shutil.rmtree(ensurepip.__path__[0])" in run, "it would bring pip back"


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
    assert target.pairs("LABEL")["org.opencontainers.image.version"] == version
    assert f"--tag bedplate-{target.name}:{version}" in make_images()


def test_the_image_names_what_it_stands_on(target: Stage) -> None:
    assert target.pairs("LABEL")["org.opencontainers.image.base.name"] == "${PYTHON_IMAGE}"
    assert target.values("ARG") == ["PYTHON_IMAGE"]


def test_what_changes_with_each_build_is_given_to_it_and_spoils_no_layer() -> None:
    for label in ("revision", "created"):
        assert f"--label org.opencontainers.image.{label}=" in make_images()


def test_no_image_takes_gpus_that_it_was_not_given(target: Stage) -> None:
    assert "NVIDIA_VISIBLE_DEVICES" not in target.pairs("ENV")


def make_images() -> str:
    """The script that builds the images, for each target."""
    outer = {"MAKEFLAGS", "MAKELEVEL", "MFLAGS"}
    environment = {name: value for name, value in os.environ.items() if name not in outer}
    done = subprocess.run(
        ["make", "--dry-run", "images"], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    [targets] = re.findall(r"for target in ([\w -]+);", done.stdout)
    return " ".join(done.stdout.replace("$target", target) for target in targets.split())
