"""Chroma: its server over HTTP with its own client, HNSW by inner product."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import chromadb
import numpy as np
from chromadb.config import Settings
from measure import free_port, listening, run, wait_until
from numpy.typing import NDArray

_CHUNK_ROWS = 2_000
_COLLECTION = "vectors"


class Chroma:
    name = "chroma"
    interface = "server over HTTP, chromadb.HttpClient, HNSW"
    efforts = (32, 64, 128, 256, 512)

    def start(self, folder: Path, dim: int) -> None:
        port = free_port()
        command = [str(Path(sys.executable).with_name("chroma")), "run", "--path", str(folder)]
        self._log = open(folder / "chroma.log", "wb")  # noqa: SIM115  # lives as long as the server
        self._server = subprocess.Popen(
            [*command, "--host", "127.0.0.1", "--port", str(port)], stdout=self._log, stderr=self._log
        )
        wait_until(lambda: listening(port), "the Chroma server")
        settings = Settings(anonymized_telemetry=False)
        self._client = chromadb.HttpClient(host="127.0.0.1", port=port, settings=settings)
        self._effort = 0
        self._collection = self._client.create_collection(
            _COLLECTION, configuration={"hnsw": {"space": "ip", "ef_construction": 100, "ef_search": 100}}
        )

    def load(self, keys: NDArray[np.int64], vectors: NDArray[np.float32]) -> None:
        for start in range(0, len(keys), _CHUNK_ROWS):
            part = slice(start, start + _CHUNK_ROWS)
            self._collection.add(ids=[str(key) for key in keys[part]], embeddings=vectors[part])

    def lookup(self, keys: NDArray[np.int64]) -> NDArray[np.float32]:
        asked = [str(key) for key in keys.tolist()]
        answer = self._collection.get(ids=list(set(asked)), include=["embeddings"])
        found = dict(zip(answer["ids"], answer["embeddings"], strict=True))
        return np.asarray([found[key] for key in asked], np.float32)

    def search(self, query: NDArray[np.float32], k: int, effort: int) -> NDArray[np.int64]:
        if effort != self._effort:
            self._collection.modify(configuration={"hnsw": {"ef_search": effort}})
            self._effort = effort
        answer = self._collection.query(query_embeddings=[query], n_results=k, include=[])
        return np.asarray([int(key) for key in answer["ids"][0]], np.int64)

    def processes(self) -> list[int]:
        return [self._server.pid]

    def close(self) -> None:
        if hasattr(self, "_server"):
            self._server.kill()
            self._server.wait()
            self._log.close()


if __name__ == "__main__":
    run(Chroma())
