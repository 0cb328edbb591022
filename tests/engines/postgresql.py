"""PostgreSQL: databases of one's own."""

from __future__ import annotations

import os
import re
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
from psycopg import sql
from tests.engines.engine import Engine, PrivateServer, free_port

_USUAL = "postgresql+psycopg://postgres@127.0.0.1:5432"
_DEBIAN = Path("/usr/lib/postgresql")
SERIALISATION_FAILURE = "DO $$ BEGIN RAISE EXCEPTION 'not in a row' USING ERRCODE = '40001'; END $$"
"""SQL that fails as a transaction does which the server rolls back in favour of another."""


class PostgreSQL(Engine):
    name = "postgresql"
    variable = "BEDPLATE_TEST_POSTGRES"
    install = "apt-get install postgresql"

    def __init__(self, private: bool = False) -> None:
        super().__init__(private)
        self._command: list[str | Path] = []
        self.url = ""
        """Of the server, without a database: ``postgresql+psycopg://user@host:port``."""

    @classmethod
    def where(cls) -> str | None:
        # A private one first: it waits for no disk, which makes and drops databases in a tenth of the time.
        return super().where() or (_USUAL if _answers(_USUAL) else None)

    @classmethod
    def binary(cls) -> str | None:
        return _binaries()

    def start(self) -> None:
        place = self._found()
        if "://" in place:
            self.url = place
            return
        port = free_port()
        self.url = f"postgresql+psycopg://postgres@127.0.0.1:{port}"
        self._server = PrivateServer(self.name, self._connect_once, psycopg.OperationalError, _unprivileged())
        data = self._server.folder / "data"
        made = ["--no-sync", "--auth=trust", "--username=postgres", "--encoding=UTF8"]
        self._server.run([f"{place}/initdb", *made, "-D", data])
        options = {
            "port": port,
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": "",
            "fsync": "off",  # what the operating system has survives a killed server
            "max_connections": 300,
        }
        settings = [f"-c{key}={value}" for key, value in options.items()]
        self._command = [f"{place}/postgres", "-D", data, *settings]
        self._server.start(self._command)

    @contextmanager
    def away(self) -> Iterator[None]:
        """kill -9 of a private server and every process it has, which starts again when the block ends."""
        self._private.kill()
        try:
            yield
        finally:
            self._private.start(self._command)

    @contextmanager
    def database(self, template: str = "template1") -> Iterator[str]:
        """URL of a new database, a copy of ``template``; dropped at the end."""
        name = f"bedplate_{uuid.uuid4().hex}"
        names = {"name": sql.Identifier(name), "template": sql.Identifier(template)}
        self._execute(sql.SQL("CREATE DATABASE {name} TEMPLATE {template}").format(**names))
        try:
            yield f"{self.url}/{name}"
        finally:
            self._execute(sql.SQL("DROP DATABASE {name} WITH (FORCE)").format(**names))

    def _execute(self, statement: sql.Composed) -> None:
        with psycopg.connect(_conninfo(self.url), autocommit=True) as connection:
            connection.execute(statement)

    def _connect_once(self) -> None:
        psycopg.connect(_conninfo(self.url), connect_timeout=3).close()


def _conninfo(url: str) -> str:
    return f"{url.replace('+psycopg', '')}/postgres"


def _answers(url: str) -> bool:
    try:
        psycopg.connect(_conninfo(url), connect_timeout=3).close()
    except psycopg.OperationalError:
        return False
    return True


def _binaries() -> str | None:
    """The folder of ``initdb``: of the newest version that Debian has, or on PATH."""
    versions = [path for path in _DEBIAN.glob("*/bin") if (path / "initdb").exists()]
    if versions:
        return str(max(versions, key=lambda path: int(re.findall(r"\d+", path.parent.name)[0])))
    found = shutil.which("initdb")
    return str(Path(found).resolve().parent) if found else None


def _unprivileged() -> str | None:
    """PostgreSQL refuses to run as root; Debian makes this user for it."""
    return "postgres" if os.geteuid() == 0 else None
