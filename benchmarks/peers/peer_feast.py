"""Feast: its feature server over HTTP, on an online store in Redis."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
from feast import Entity, FeatureStore, FeatureView, Field, FileSource, RepoConfig, ValueType
from feast.types import Array, Float32, Int64
from measure import free_port, listening, run, wait_until
from numpy.typing import NDArray

_CHUNK_ROWS = 1_000
_VIEW = "vectors"


class Feast:
    name = "feast"
    interface = "feature server over HTTP, online store in Redis"

    def __init__(self) -> None:
        self._servers: list[subprocess.Popen[bytes]] = []

    def start(self, folder: Path, dim: int) -> None:
        redis_port, self._port = free_port(), free_port()
        command = ["redis-server", "--port", str(redis_port), "--bind", "127.0.0.1", "--save", "", "--dir"]
        self._spawn([*command, str(folder)])
        wait_until(lambda: listening(redis_port), "redis-server")
        (folder / "feature_store.yaml").write_text(
            json.dumps(
                {
                    "project": "peer",
                    "registry": str(folder / "registry.db"),
                    "provider": "local",
                    "online_store": {"type": "redis", "connection_string": f"127.0.0.1:{redis_port}"},
                    "offline_store": {"type": "file"},
                    "entity_key_serialization_version": 3,
                }
            )
        )
        pd.DataFrame({"key": [0], "vector": [[0.0] * dim], "at": [datetime.now(UTC)]}).to_parquet(
            folder / "source.parquet"
        )
        self._folder = folder
        self._store = FeatureStore(config=self._config())
        entity = Entity(name="key", join_keys=["key"], value_type=ValueType.INT64)
        view = FeatureView(
            name=_VIEW,
            entities=[entity],
            ttl=timedelta(days=365),
            schema=[Field(name="key", dtype=Int64), Field(name="vector", dtype=Array(Float32))],
            source=FileSource(path=str(folder / "source.parquet"), timestamp_field="at"),
        )
        self._store.apply([entity, view])

    def _config(self) -> RepoConfig:
        from feast.repo_config import load_repo_config

        return load_repo_config(self._folder, self._folder / "feature_store.yaml")

    def _spawn(self, command: list[str]) -> None:
        self._servers.append(subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))

    def load(self, keys: NDArray[np.int64], vectors: NDArray[np.float32]) -> None:
        now = datetime.now(UTC)
        for start in range(0, len(keys), _CHUNK_ROWS):
            part = slice(start, start + _CHUNK_ROWS)
            rows = {"key": keys[part], "vector": list(vectors[part]), "at": now}
            self._store.write_to_online_store(_VIEW, pd.DataFrame(rows))
        feast = str(Path(sys.executable).with_name("feast"))
        self._spawn([feast, "-c", str(self._folder), "serve", "-h", "127.0.0.1", "-p", str(self._port)])
        wait_until(lambda: listening(self._port), "the feature server")

    def lookup(self, keys: NDArray[np.int64]) -> NDArray[np.float32]:
        body = {"features": [f"{_VIEW}:vector"], "entities": {"key": keys.tolist()}}
        request = urllib.request.Request(
            f"http://127.0.0.1:{self._port}/get-online-features",
            json.dumps(body).encode(),
            {"content-type": "application/json"},
        )
        with urllib.request.urlopen(request) as response:
            answer = json.load(response)
        column = answer["metadata"]["feature_names"].index("vector")
        return np.asarray(answer["results"][column]["values"], np.float32)

    def processes(self) -> list[int]:
        return [each.pid for each in self._servers] + [
            child for each in self._servers for child in _children(each.pid)
        ]

    def close(self) -> None:
        for each in self._servers:
            for child in _children(each.pid):
                subprocess.run(["kill", str(child)], check=False)
            each.kill()
            each.wait()


def _children(pid: int) -> list[int]:
    """The processes that ``pid`` started."""
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        found += [int(each) for each in task.read_text().split()]
    return found


if __name__ == "__main__":
    run(Feast())
