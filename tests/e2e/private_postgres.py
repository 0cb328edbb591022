"""A PostgreSQL server of one's own, to be stopped and started as a test likes."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import psycopg
import pytest

from .cluster import free_port

_USER = "postgres" if os.geteuid() == 0 else None  # the server refuses to run as root


def _binaries() -> Path:
    found = shutil.which("initdb")
    installed = [Path(found).parent] if found else sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    if not installed:
        pytest.skip("NO POSTGRESQL to start here: apt-get install postgresql")
    return installed[-1]


class PrivatePostgres:
    """Its own data directory and port; two databases, ``registry`` and ``store``."""

    def __init__(self) -> None:
        self._bin = _binaries()
        self._folder = Path(tempfile.mkdtemp(prefix="bedplate-postgres-"))
        if _USER is not None:
            shutil.chown(self._folder, _USER)
        self._data = self._folder / "data"
        self.port = free_port()
        self._run("initdb", "-D", self._data, "--auth=trust", "--username=postgres", "--encoding=UTF8")
        self.start()
        with psycopg.connect(self._libpq("postgres"), autocommit=True) as connection:
            for name in ("registry", "store"):
                connection.execute(f"CREATE DATABASE {name}".encode())

    def url(self, name: str) -> str:
        return f"postgresql+psycopg://postgres@127.0.0.1:{self.port}/{name}"

    def start(self) -> None:
        """Returns when it takes connections."""
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={self._folder}"
        self._run("pg_ctl", "-D", self._data, "-l", self._folder / "log", "-w", "-o", options, "start")

    def stop(self) -> None:
        """As if the machine had lost its power: no connection is ended well."""
        self._run("pg_ctl", "-D", self._data, "-w", "-m", "immediate", "stop")

    def close(self) -> None:
        if (self._data / "postmaster.pid").exists():
            self.stop()
        shutil.rmtree(self._folder)

    def _libpq(self, name: str) -> str:
        return self.url(name).replace("+psycopg", "")

    def _run(self, program: str, *arguments: str | Path) -> None:
        with (self._folder / "output").open("ab") as output:
            subprocess.run(
                [str(self._bin / program), *map(str, arguments)],
                check=True,
                user=_USER,
                cwd=self._folder,
                stdout=output,
                stderr=output,
            )
