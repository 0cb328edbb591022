"""Qdrant's engine in this process (qdrant-edge): no server and no network between."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from measure import run
from numpy.typing import NDArray
from qdrant_edge import (
    Distance,
    EdgeConfig,
    EdgeShard,
    EdgeVectorParams,
    HnswIndexConfig,
    Point,
    Query,
    SearchParams,
    SearchRequest,
    UpdateOperation,
)

_CHUNK_ROWS = 2_000
_NAME = "vector"


class QdrantEdge:
    name = "qdrant-edge"
    interface = "in process, HNSW"
    efforts = (32, 64, 128, 256, 512)

    def start(self, folder: Path, dim: int) -> None:
        index = HnswIndexConfig(m=16, ef_construct=100, full_scan_threshold=1_000)
        config = EdgeConfig(vectors={_NAME: EdgeVectorParams(dim, Distance.Dot)}, hnsw_config=index)
        self._folder = folder / "shard"
        self._folder.mkdir()
        self._shard = EdgeShard.create(str(self._folder), config)

    def load(self, keys: NDArray[np.int64], vectors: NDArray[np.float32]) -> None:
        for start in range(0, len(keys), _CHUNK_ROWS):
            part = slice(start, start + _CHUNK_ROWS)
            rows = zip(keys[part].tolist(), vectors[part].tolist(), strict=True)
            points = [Point(key, {_NAME: row}, {}) for key, row in rows]
            self._shard.update(UpdateOperation.upsert_points(points))
        self._shard.flush()
        self._shard.optimize()

    def lookup(self, keys: NDArray[np.int64]) -> NDArray[np.float32]:
        asked = keys.tolist()
        records = self._shard.retrieve(list(set(asked)), with_payload=False, with_vector=True)
        found = {record.id: record.vector[_NAME] for record in records}
        return np.asarray([found[key] for key in asked], np.float32)

    def search(self, query: NDArray[np.float32], k: int, effort: int) -> NDArray[np.int64]:
        request = SearchRequest(
            Query.Nearest(query.tolist(), using=_NAME),
            k,
            params=SearchParams(hnsw_ef=effort),
            with_payload=False,
        )
        return np.asarray([point.id for point in self._shard.search(request)], np.int64)

    def processes(self) -> list[int]:
        return []

    def close(self) -> None:
        if hasattr(self, "_shard"):
            self._shard.close()


if __name__ == "__main__":
    run(QdrantEdge())
