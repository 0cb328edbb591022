"""The install steps of the Dockerfile, in a clean directory; what comes out runs as the image says."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from deploy.lock import EXTRAS, LOCKS
from tests.images.dockerfile import ROOT, read_stages

from bedplate_services.supervisor.ports import choose_ports

pytestmark = pytest.mark.timeout(900)  # it downloads some 150 MB
HOST = "127.0.0.1"
PATIENCE_SECONDS = 60.0
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
READ_ONLY_ROOT = (
    *("unshare", "--mount", "--map-root-user", "sh", "-euc"),
    'mount --bind "$1" "$1"; mount -o remount,ro,bind /; cd "$1"; shift; exec "$@"',
)
"""Runs a command where only one directory may be written to. Arguments: ``sh``, directory, command."""


@dataclass(frozen=True)
class Installed:
    """What lies in an image below /opt/bedplate, and a directory that its user may write to."""

    environment: Path
    volumes: Path

    @property
    def python(self) -> Path:
        return self.environment / "bin" / "python"

    def variables(self, stage: str, **more: str) -> dict[str, str]:
        """The image's own environment, with this machine's places in it."""
        places = {
            "PATH": f"{self.environment / 'bin'}:{os.defpath}",
            "HOME": str(self.volumes),
            "BEDPLATE_CACHE_DIR": str(self.volumes / "cache"),
            "BEDPLATE_SPOOL_DIR": str(self.volumes / "spool"),
        }
        return {**read_stages()[stage].pairs("ENV"), **places, **more}

    def start(self, *command: str, environment: dict[str, str]) -> subprocess.Popen[str]:
        """``python -m COMMAND`` where the root file system is read-only but for ``volumes``."""
        return subprocess.Popen(
            [*READ_ONLY_ROOT, "sh", self.volumes, self.python, "-m", *command],
            cwd=self.volumes,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )


@pytest.fixture(scope="module")
def read_only_root() -> None:
    done = subprocess.run(
        [*READ_ONLY_ROOT, "sh", tempfile.gettempdir(), "true"], capture_output=True, text=True
    )
    if done.returncode:
        pytest.skip(f"NO MOUNT NAMESPACES: {done.stderr.strip()}; be root, or allow user namespaces")


@pytest.fixture(scope="module")
def api_image() -> Iterator[Installed]:
    # Not below pytest's own directories: it is large, and those are kept.
    with tempfile.TemporaryDirectory(prefix="bedplate-image-") as scratch:
        folder = Path(scratch)
        subprocess.run([sys.executable, "-m", "venv", folder / "base"], check=True)
        stages = read_stages()
        for line in [*stages["wheel"].values("RUN"), stages["packages-api"].values("RUN")[-1]]:
            _run_step(line, folder)
        (folder / "volumes").mkdir()
        yield Installed(folder / "opt" / "bedplate", folder / "volumes")


def _run_step(line: str, root: Path) -> None:
    """A ``RUN`` of the Dockerfile, in this tree, with what it names by absolute paths below ``root``."""
    command = re.sub(r"--mount=\S+ ", "", line)
    for path in ("/opt/bedplate", "/dist"):
        command = command.replace(f" {path}", f" {root}{path}")
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment["PATH"] = f"{root / 'base' / 'bin'}:{os.defpath}"
    done = subprocess.run(["sh", "-c", command], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, f"{command}: {done.stdout[-2000:]}{done.stderr[-2000:]}"


def test_there_is_no_pip_in_the_environment(api_image: Installed) -> None:
    done = subprocess.run([api_image.python, "-m", "pip"], capture_output=True, text=True)
    assert "No module named pip" in done.stderr


def test_it_holds_bedplate_itself_and_not_a_link_to_the_source(api_image: Installed) -> None:
    code = "import bedplate_services; print(bedplate_services.__file__)"
    environment = api_image.variables("api")
    done = subprocess.run(
        [api_image.python, "-c", code], capture_output=True, text=True, check=True, env=environment
    )
    assert Path(done.stdout.strip()).is_relative_to(api_image.environment)


@pytest.mark.parametrize("module", WITHOUT_TORCH)
def test_processes_that_run_no_model_start_without_torch(api_image: Installed, module: str) -> None:
    code = f"import importlib.util, {module}; print(importlib.util.find_spec('torch'))"
    environment = api_image.variables("api")
    done = subprocess.run([api_image.python, "-c", code], capture_output=True, text=True, env=environment)
    assert done.stdout.strip() == "None", done.stderr


@pytest.mark.usefixtures("read_only_root")
def test_the_api_serves_from_a_read_only_root_and_stops_when_told(api_image: Installed) -> None:
    [port] = choose_ports(HOST, [(0, "--port")])
    environment = api_image.variables(
        "api",
        BEDPLATE_REGISTRY_DATABASE_URL=f"sqlite:///{api_image.volumes / 'registry.db'}",
        BEDPLATE_STORE_DATABASE_URL=f"sqlite:///{api_image.volumes / 'store.db'}",
        BEDPLATE_OBJECTS_URL=f"file://{api_image.volumes / 'objects'}",
        BEDPLATE_HOST=HOST,
        BEDPLATE_PORT=str(port),
        BEDPLATE_DRAIN_SECONDS="0",
    )
    migrations = api_image.start("bedplate_services.migrations", "upgrade", environment=environment)
    output, _ = migrations.communicate(timeout=PATIENCE_SECONDS)
    assert migrations.returncode == 0, output
    [command] = read_stages()["api"].words("CMD")
    api = api_image.start(command, environment=environment)
    try:
        _wait_until_ready(f"http://{HOST}:{port}/readyz", api)
        api.send_signal(signal.SIGTERM)
        output, _ = api.communicate(timeout=PATIENCE_SECONDS)
        assert api.returncode == 0, output
        assert "Application shutdown complete." in output
    finally:
        api.kill()
        api.wait()
    assert "Traceback" not in output
    assert "alembic" not in output, "a readiness probe leaves lines in the log"


def _wait_until_ready(url: str, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if httpx.get(url, timeout=5).status_code == 200:
                return
        except httpx.TransportError:
            pass  # it does not listen yet
        time.sleep(0.1)
    process.kill()
    output, _ = process.communicate()
    raise AssertionError(f"{url} is not ready: {output}")


@pytest.mark.parametrize("name", EXTRAS)
def test_the_lock_is_closed_and_its_versions_are_to_be_had(name: str, tmp_path: Path) -> None:
    """What a pinned package depends on is pinned, too, in a version that it takes; nothing is downloaded."""
    torch = os.environ.get("PIP_FIND_LINKS")
    source = [f"--find-links={torch}"] if torch else ["--torch-backend=cpu"]
    command = [
        *(
            sys.executable,
            "-m",
            "uv",
            "pip",
            "install",
            "--dry-run",
            "--require-hashes",
            "--only-binary=:all:",
        ),
        *("--python-version=3.11", "--python-platform=x86_64-manylinux_2_28", f"--target={tmp_path}"),
        *(*(source if name == "cpu" else []), "--requirement", str(LOCKS / f"{name}.txt")),
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    would_install = re.findall(r"^ \+ ([\w.-]+)==", done.stderr, re.M)
    pinned = re.findall(r"^([\w.-]+)(?:\[\S+\])?==", (LOCKS / f"{name}.txt").read_text(), re.M)
    assert sorted(would_install) == sorted(pinned)
