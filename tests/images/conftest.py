"""The images, made once for all tests, and only those that tests ask for."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.images.installed import READ_ONLY_ROOT, Installed, Volumes, build_bedplate, install

MODEL_IMAGES = ["worker-cpu", *(["worker-gpu"] if os.environ.get("BEDPLATE_TEST_GPU_IMAGE") else [])]


@pytest.fixture(scope="session")
def built() -> Iterator[Path]:
    """A directory with what all images share, and the tools that install the rest."""
    # Not below pytest's own directories: it is large, and those are kept.
    with tempfile.TemporaryDirectory(prefix="bedplate-image-") as scratch:
        folder = Path(scratch)
        build_bedplate(folder)
        yield folder


@pytest.fixture(scope="session")
def api_image(built: Path) -> Installed:
    return install("api", built, {})


@pytest.fixture(scope="session", params=MODEL_IMAGES)
def model_image(request: pytest.FixtureRequest, built: Path) -> Installed:
    """What runs models: the CPU's, and with BEDPLATE_TEST_GPU_IMAGE the GPU's as well."""
    variables = request.getfixturevalue("cpu_torch") if request.param == "worker-cpu" else {}
    return install(request.param, built, variables)


@pytest.fixture
def volumes(built: Path) -> Iterator[Volumes]:
    with tempfile.TemporaryDirectory(dir=built) as folder:
        yield Volumes(Path(folder) / "volumes")


@pytest.fixture(scope="session")
def read_only_root() -> None:
    done = subprocess.run(
        [*READ_ONLY_ROOT, "sh", tempfile.gettempdir(), "true"], capture_output=True, text=True
    )
    if done.returncode:
        pytest.skip(f"NO MOUNT NAMESPACES: {done.stderr.strip()}; be root, or allow user namespaces")
