"""Programs that tests use, and that a machine may lack like an engine."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
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


PROMTOOL = PackagedTool("promtool", package="prometheus")
PG_DUMP = Tool("pg_dump", "apt-get install postgresql-client")
TOOLS: dict[str, Tool] = {each.name: each for each in (PROMTOOL, PG_DUMP)}
