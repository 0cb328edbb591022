"""Redis: the vectors' bytes under their keys, read by MGET; a server of our own, nothing on disk."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import redis
from measure import free_port, listening, run, wait_until
from numpy.typing import NDArray

_CHUNK_ROWS = 2_000


class Redis:
    name = "redis"
    interface = "MGET over TCP, redis-py with hiredis"

    def start(self, folder: Path, dim: int) -> None:
        port = free_port()
        command = [
            "redis-server",
            "--port",
            str(port),
            "--bind",
            "127.0.0.1",
            "--save",
            "",
            "--appendonly",
            "no",
        ]
        self._server = subprocess.Popen([*command, "--dir", str(folder)], stdout=subprocess.DEVNULL)
        wait_until(lambda: listening(port), "redis-server")
        self._client = redis.Redis(port=port, protocol=3)
        self.interface += f", server {self._client.info('server')['redis_version']}"
        self._dim = dim

    def load(self, keys: NDArray[np.int64], vectors: NDArray[np.float32]) -> None:
        for start in range(0, len(keys), _CHUNK_ROWS):
            part = keys[start : start + _CHUNK_ROWS].tolist()
            rows = vectors[start : start + _CHUNK_ROWS]
            self._client.mset({key: row.tobytes() for key, row in zip(part, rows, strict=True)})

    def lookup(self, keys: NDArray[np.int64]) -> NDArray[np.float32]:
        values = self._client.mget(keys.tolist())
        return np.frombuffer(b"".join(values), np.float32).reshape(-1, self._dim)

    def processes(self) -> list[int]:
        return [self._server.pid]

    def close(self) -> None:
        if hasattr(self, "_server"):
            self._server.kill()
            self._server.wait()


if __name__ == "__main__":
    run(Redis())
