"""The Dockerfile's install steps for the API, in a clean directory; what comes out runs as the image says."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from deploy.lock import EXTRAS, LOCKS
from tests.images.dockerfile import read_stages
from tests.images.installed import Installed, Volumes

from bedplate_services.supervisor.ports import choose_ports

pytestmark = pytest.mark.timeout(900)  # it downloads some 150 MB
HOST = "127.0.0.1"
WITHOUT_TORCH = (
    "bedplate_services.api",
    "bedplate_services.migrations",
    "bedplate_services.provisioning",
    "bedplate_services.shards.node",
    "bedplate_workers.alive",
    "bedplate_workers.reconciler",
    "bedplate_workers.sealer",
)
"""What the image ``api`` runs."""


def test_there_is_no_pip_in_the_environment(api_image: Installed) -> None:
    done = subprocess.run([api_image.python, "-m", "pip"], capture_output=True, text=True)
    assert "No module named pip" in done.stderr


def test_it_holds_bedplate_itself_and_not_a_link_to_the_source(
    api_image: Installed, volumes: Volumes
) -> None:
    code = "import bedplate_services; print(bedplate_services.__file__)"
    place = api_image.run("-c", code, environment=api_image.variables("api", volumes))
    assert Path(place).is_relative_to(api_image.environment)


@pytest.mark.parametrize("module", WITHOUT_TORCH)
def test_processes_that_run_no_model_start_without_torch(
    api_image: Installed, volumes: Volumes, module: str
) -> None:
    code = f"import importlib.util, {module}; print(importlib.util.find_spec('torch'))"
    assert api_image.run("-c", code, environment=api_image.variables("api", volumes)) == "None"


@pytest.mark.usefixtures("read_only_root")
def test_the_api_serves_from_a_read_only_root_and_stops_when_told(
    api_image: Installed, volumes: Volumes
) -> None:
    [port] = choose_ports(HOST, [(0, "--port")])
    environment = api_image.variables(
        "api",
        volumes,
        BEDPLATE_REGISTRY_DATABASE_URL=f"sqlite:///{volumes.folder / 'registry.db'}",
        BEDPLATE_STORE_DATABASE_URL=f"sqlite:///{volumes.folder / 'store.db'}",
        BEDPLATE_OBJECTS_URL=f"file://{volumes.folder / 'objects'}",
        BEDPLATE_HOST=HOST,
        BEDPLATE_PORT=str(port),
        BEDPLATE_DRAIN_SECONDS="0",
    )
    migrations = api_image.start(
        "bedplate_services.migrations", "upgrade", volumes=volumes, environment=environment
    )
    assert migrations.wait() == 0, migrations.output()
    [command] = read_stages()["api"].words("CMD")
    api = api_image.start(command, volumes=volumes, environment=environment)
    try:
        api.wait_until_ready(f"http://{HOST}:{port}")
        assert api.stop() == 0, api.output()
    finally:
        api.kill()
    assert "Application shutdown complete." in api.output()
    assert "Traceback" not in api.output()
    assert "alembic" not in api.output(), "a readiness probe leaves lines in the log"


@pytest.mark.parametrize("name", EXTRAS)
def test_the_lock_is_closed_and_its_versions_are_to_be_had(
    name: str, tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a pinned package depends on is pinned, too, in a version that it takes; nothing is downloaded."""
    if name == "cpu":
        for variable, value in request.getfixturevalue("cpu_torch").items():
            monkeypatch.setenv(variable, value)
    command = [
        *(sys.executable, "-m", "uv", "pip", "install", "--dry-run", "--require-hashes"),
        *("--only-binary=:all:", "--python-version=3.11", "--python-platform=x86_64-manylinux_2_28"),
        *(f"--target={tmp_path}", "--requirement", str(LOCKS / f"{name}.txt")),
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    would_install = re.findall(r"^ \+ ([\w.-]+)==", done.stderr, re.M)
    pinned = re.findall(r"^([\w.-]+)(?:\[\S+\])?==", (LOCKS / f"{name}.txt").read_text(), re.M)
    assert sorted(would_install) == sorted(pinned)
