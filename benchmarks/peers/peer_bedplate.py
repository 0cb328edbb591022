"""Bedplate itself, as its users meet it: the platform's processes, over HTTP, with ``bedplate.Client``."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from measure import run
from numpy.typing import NDArray
from safetensors.numpy import save_file

from bedplate import Client
from bedplate.wire.registry import Signature, SpaceSignature, TensorSignature
from bedplate_modeling import checkpoint_layout as layout
from bedplate_services.supervisor.platform import Platform

_SPACE = "peers@1/vectors"
_CHUNK_ROWS = 50_000


class Bedplate:
    name = "bedplate"
    interface = "server over HTTP, bedplate.Client"
    efforts = (0,)  # tuned when the index is built

    def start(self, folder: Path, dim: int) -> None:
        self._platform = Platform(folder / "data").start()
        self._client = Client(self._platform.url, self._platform.token)
        self._client.teams.create("peers")
        self._client.foundations.create("peers", team="peers")
        checkpoint = folder / "checkpoint"
        checkpoint.mkdir()
        save_file({"nothing": np.zeros(1, np.float32)}, checkpoint / layout.WEIGHTS)
        (checkpoint / layout.CONFIG).write_text(json.dumps({"architecture": layout.FOUNDATION}))
        signature = Signature(
            architecture=layout.FOUNDATION,
            spaces={"vectors": SpaceSignature(dim=dim, dtype="float32", key_type="int64")},
            tensors={"nothing": TensorSignature(dtype="F32", shape=[1])},
        )
        (checkpoint / layout.SIGNATURE).write_text(signature.model_dump_json())
        self._client.versions.publish("peers", checkpoint)

    def load(self, keys: NDArray[np.int64], vectors: NDArray[np.float32]) -> None:
        for start in range(0, len(keys), _CHUNK_ROWS):
            part = slice(start, start + _CHUNK_ROWS)
            self._client.spaces.upsert(_SPACE, keys[part], vectors[part])
        self._client.jobs.watch(self._client.spaces.compact(_SPACE))

    def lookup(self, keys: NDArray[np.int64]) -> NDArray[np.float32]:
        return self._client.spaces.lookup(_SPACE, keys).vectors

    def search(self, query: NDArray[np.float32], k: int, effort: int) -> NDArray[np.int64]:
        return self._client.spaces.search(_SPACE, query[None, :], k=k).keys[0]

    def processes(self) -> list[int]:
        return list(self._platform.pids().values())

    def close(self) -> None:
        if hasattr(self, "_platform"):
            self._platform.stop()


if __name__ == "__main__":
    run(Bedplate())
