"""checkov, in an environment of its own: it pins some hundred packages, several of them differently."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tests.engines.tools import cache_folder

_LOCK = Path(__file__).with_name("checkov.txt")


class NoCheckov(Exception):
    """It could not be installed; the text says why."""


@dataclass(frozen=True, order=True)
class Finding:
    """A check that failed on one object."""

    check: str
    file: str
    resource: str
    title: str


def find_checkov() -> Path:
    """The Python that has checkov; installed from its lock into the user's cache where it is not there yet.

    Raises:
        NoCheckov: uv could not install it.
    """
    home = cache_folder() / f"checkov-{hashlib.sha256(_LOCK.read_bytes()).hexdigest()[:16]}"
    python = home / "bin" / "python"
    if python.exists():
        return python
    shutil.rmtree(home, ignore_errors=True)  # there was one, whose interpreter is gone
    home.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=home.parent) as scratch:
        environment = Path(scratch) / "environment"
        _uv("venv", "--relocatable", f"--python={sys.executable}", str(environment))
        install = ("pip", "install", f"--python={environment / 'bin' / 'python'}", "--require-hashes")
        _uv(*install, "--requirement", str(_LOCK))
        try:
            environment.rename(home)
        except OSError:
            if not python.exists():  # else another process was first, with the same packages
                raise
    return python


def scan(python: Path, folder: Path) -> list[Finding]:
    """What checkov has against the manifests in ``folder``, with no check skipped and nothing fetched."""
    command: list[str | Path] = [
        python,
        "-m",
        "checkov.main",
        "--directory",
        folder,
        "--framework",
        "kubernetes",
        "--skip-download",
    ]
    # It would also tell its maker's service of the run, given a key.
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("BC_", "PRISMA"))
    }
    environment.pop("PYTHONPATH", None)
    done = subprocess.run(
        [*command, "--output", "json", "--compact", "--quiet", "--soft-fail"],
        capture_output=True,
        text=True,
        env=environment,
    )
    if done.returncode:
        raise RuntimeError(f"checkov failed: {done.stderr}")
    failed = json.loads(done.stdout)["results"]["failed_checks"]
    return sorted(
        Finding(one["check_id"], one["file_path"].lstrip("/"), one["resource"], one["check_name"])
        for one in failed
    )


def _uv(*arguments: str) -> None:
    done = subprocess.run([sys.executable, "-m", "uv", *arguments], capture_output=True, text=True)
    if done.returncode:
        raise NoCheckov(f"uv could not install it (it must reach PyPI once): {done.stderr.strip()}")
