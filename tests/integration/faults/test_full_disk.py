"""A full disk fails the write and nothing else: on a real one of 8 MiB, in a mount namespace of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.integration.faults.full_disk_scenes import SCENES

_MOUNT = 'mount -t tmpfs -o size=8m none "$0" && exec "$@"'


@pytest.fixture(scope="module")
def in_small_disk(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[str], Path]:
    """A command line that goes before another one, and the folder that is small for it."""
    small = tmp_path_factory.mktemp("small")
    prefix = ["unshare", "--map-root-user", "--mount", "sh", "-c", _MOUNT, str(small)]
    try:
        tried = subprocess.run([*prefix, "true"], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("NO unshare: install util-linux")
    if tried.returncode:
        pytest.skip(f"NO SMALL DISK: user namespaces cannot mount a tmpfs here: {tried.stderr.strip()}")
    return prefix, small


@pytest.mark.parametrize("scene", SCENES)
def test_a_full_disk_fails_the_write_and_nothing_else(
    scene: str, in_small_disk: tuple[list[str], Path], tmp_path: Path
) -> None:
    prefix, small = in_small_disk
    command = [sys.executable, "-m", "tests.integration.faults.full_disk_scenes"]
    played = subprocess.run(
        [*prefix, *command, scene, str(small), str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert played.returncode == 0, played.stderr[-3000:]
