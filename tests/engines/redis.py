"""Redis, or Valkey: numbered databases of one's own."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import redis
from tests.engines.engine import Engine, PrivateServer, free_port


class Redis(Engine):
    name = "redis"
    variable = "BEDPLATE_TEST_REDIS"
    install = "apt-get install redis-server"

    def __init__(self, private: bool = False) -> None:
        super().__init__(private)
        self._taken: set[int] = set()
        self.url = ""
        """``redis://host:port``"""

    @classmethod
    def binary(cls) -> str | None:
        return shutil.which("redis-server") or shutil.which("valkey-server")

    def start(self) -> None:
        place = self._found()
        if "://" in place:
            self.url = place.rstrip("/")
            return
        port = free_port()
        self.url = f"redis://127.0.0.1:{port}"
        self._server = PrivateServer("redis", self._ping, redis.ConnectionError)
        self._command = [place, f"--port {port}", "--bind 127.0.0.1", "--save", "", "--appendonly no"]
        self._server.start(self._command)

    def kill(self) -> None:
        """kill -9 of the private server."""
        self._private.kill()

    def empty(self) -> None:
        """Nothing is left of a killed server anyhow: it writes nothing to disk."""

    def restart(self) -> None:
        """Start the killed server again, at the same address."""
        self._private.start(self._command)

    @contextmanager
    def database(self) -> Iterator[str]:
        """URL of an empty database; emptied at the end."""
        number = next(number for number in range(16) if self._is_free(number))
        self._taken.add(number)
        try:
            yield f"{self.url}/{number}"
        finally:
            with self._connect(number) as connection:
                connection.flushdb()
            self._taken.remove(number)

    def _is_free(self, number: int) -> bool:
        with self._connect(number) as connection:
            return number not in self._taken and connection.dbsize() == 0

    def _ping(self) -> None:
        with self._connect(0) as connection:
            connection.ping()

    def _connect(self, number: int) -> redis.Redis:
        return redis.Redis.from_url(f"{self.url}/{number}")
