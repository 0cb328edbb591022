"""What lies in an image below /opt/bedplate, made by the Dockerfile's own steps, and processes of it."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import httpx
from tests.images.dockerfile import ROOT, read_stages

PATIENCE_SECONDS = 300.0
READ_ONLY_ROOT = (
    *("unshare", "--mount", "--map-root-user", "sh", "-euc"),
    'mount --bind "$1" "$1"; mount -o remount,ro,bind /; cd "$1"; shift; exec "$@"',
)
"""Runs a command where only one directory may be written to. Arguments: ``sh``, directory, command."""
COMPILERS = ("cc", "gcc", "g++", "c++", "clang", "clang++", "nvcc")


class Volumes:
    """The one directory that a process may write to. On its PATH lie programs in the place of compilers."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.programs = folder / "compilers"
        self.programs.mkdir(parents=True)
        for name in COMPILERS:
            program = self.programs / name
            program.write_text(f'#!/bin/sh\necho "{name} $*" >> {folder}/compiled\nexit 1\n')
            program.chmod(0o755)

    def compiled(self) -> str:
        """Each call of a compiler, a line."""
        log = self.folder / "compiled"
        return log.read_text() if log.exists() else ""


@dataclass(frozen=True)
class Running:
    """A process of an image, and what it has said."""

    process: subprocess.Popen[bytes]
    log: Path

    def output(self) -> str:
        return self.log.read_text()

    def wait(self) -> int:
        return self.process.wait(PATIENCE_SECONDS)

    def wait_until_ready(self, url: str) -> None:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not _ready(url):
            assert self.process.poll() is None, self.output()
            assert time.monotonic() < deadline, f"{url} is not ready: {self.output()}"
            time.sleep(0.1)

    def stop(self) -> int:
        """SIGTERM; the exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.wait()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


def _ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/readyz", timeout=5, trust_env=False).status_code == httpx.codes.OK
    except httpx.TransportError:
        return False  # it does not listen yet


@dataclass(frozen=True)
class Installed:
    """The environment of an image.

    Attributes:
        environment: what is /opt/bedplate there; its last part is the image's name.
    """

    environment: Path

    @property
    def python(self) -> Path:
        return self.environment / "bin" / "python"

    def variables(self, stage: str, volumes: Volumes, **more: str) -> dict[str, str]:
        """The image's own environment, with this machine's places in it."""
        places = {
            "PATH": f"{self.environment / 'bin'}:{volumes.programs}:{os.defpath}",
            "HOME": str(volumes.folder),
            "BEDPLATE_CACHE_DIR": str(volumes.folder / "cache"),
            "BEDPLATE_SPOOL_DIR": str(volumes.folder / "spool"),
        }
        return {**read_stages()[stage].pairs("ENV"), **places, **more}

    def run(self, *arguments: str, environment: Mapping[str, str] | None = None) -> str:
        """``python ARGUMENTS``; what it prints."""
        done = subprocess.run(
            [self.python, *arguments], env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def start(self, *command: str, volumes: Volumes, environment: Mapping[str, str]) -> Running:
        """``python -m COMMAND`` where the root file system is read-only but for the volumes."""
        number = len(list(volumes.folder.glob("*.log")))
        log = volumes.folder / f"{number}-{command[0]}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [*READ_ONLY_ROOT, "sh", volumes.folder, self.python, "-m", *command],
                cwd=volumes.folder,
                env=environment,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        return Running(process, log)


def build_bedplate(folder: Path) -> None:
    """The stage ``bedplate`` in ``folder``/bedplate, by the images' own tools, in ``folder``/base."""
    subprocess.run([sys.executable, "-m", "venv", folder / "base"], check=True)
    for line in read_stages()["bedplate"].values("RUN"):
        _run_step(line, folder, {"/dist": folder / "dist", "/opt/bedplate": folder / "bedplate"}, {})


def install(stage: str, folder: Path, variables: Mapping[str, str]) -> Installed:
    """What the image ``stage`` holds, in ``folder``/stage. ``variables``: where to find packages."""
    made = folder / stage
    packages, *itself = read_stages()[stage].values("COPY")
    source = packages.removeprefix("--from=").split()[0]
    _run_step(read_stages()[source].values("RUN")[-1], folder, {"/opt/bedplate": made}, variables)
    for copied in itself:
        name, place, target = copied.removeprefix("--from=").split()
        _lay_over(_placed(place, folder / name), _placed(target, made))
    _run_step(f"uv pip check --python {made}/bin/python", folder, {}, {})
    return Installed(made)


def _placed(path: str, environment: Path) -> Path:
    return environment / Path(path).relative_to("/opt/bedplate")


def _lay_over(source: Path, target: Path) -> None:
    """As ``COPY`` does: the files of a directory among those that are there, or a file."""
    if source.is_dir():
        shutil.copytree(source, target, symlinks=True, dirs_exist_ok=True)
    else:
        shutil.copy2(source, target)


def _run_step(line: str, folder: Path, places: Mapping[str, Path], variables: Mapping[str, str]) -> None:
    """A ``RUN`` of the Dockerfile in this tree, with other places for the absolute paths it names."""
    command = re.sub(r"--mount=\S+ ", "", line)
    for path, place in places.items():
        command = command.replace(f" {path}", f" {place}")
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment["PATH"] = f"{folder / 'base' / 'bin'}:{os.defpath}"
    done = subprocess.run(
        ["sh", "-c", command], cwd=ROOT, env={**environment, **variables}, capture_output=True, text=True
    )
    assert done.returncode == 0, f"{command}: {done.stdout[-2000:]}{done.stderr[-2000:]}"
