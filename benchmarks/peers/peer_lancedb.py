"""LanceDB, embedded: a table on disk, a BTREE on the key, IVF-PQ with refinement on the vectors."""

from __future__ import annotations

from pathlib import Path

import lancedb
import numpy as np
import pyarrow as pa
from measure import run
from numpy.typing import NDArray

_REFINE_FACTOR = 30


class LanceDB:
    name = "lancedb"
    interface = "embedded, IVF-PQ with refine, BTREE on the key"
    efforts = (4, 8, 16, 32, 64, 128, 256)

    def start(self, folder: Path, dim: int) -> None:
        self._database = lancedb.connect(str(folder))
        self._dim = dim

    def load(self, keys: NDArray[np.int64], vectors: NDArray[np.float32]) -> None:
        column = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), self._dim)
        self._table = self._database.create_table(
            "vectors", pa.table({"key": pa.array(keys), "vector": column})
        )
        self._table.create_scalar_index("key", index_type="BTREE")
        lists = 1 << round(np.log2(2 * np.sqrt(len(keys))))
        self._table.create_index(
            metric="dot", vector_column_name="vector", num_partitions=lists, num_sub_vectors=self._dim // 4
        )

    def lookup(self, keys: NDArray[np.int64]) -> NDArray[np.float32]:
        asked = keys.tolist()
        listed = ",".join(map(str, set(asked)))
        found = self._table.search().where(f"key IN ({listed})").limit(len(asked)).to_arrow()
        vectors = found["vector"].combine_chunks().flatten().to_numpy().reshape(-1, self._dim)
        rows = {key: row for row, key in enumerate(found["key"].to_pylist())}
        return vectors[[rows[key] for key in asked]]

    def search(self, query: NDArray[np.float32], k: int, effort: int) -> NDArray[np.int64]:
        asked = self._table.search(query).metric("dot").nprobes(effort).refine_factor(_REFINE_FACTOR)
        return asked.limit(k).select(["key", "_distance"]).to_arrow()["key"].to_numpy()

    def processes(self) -> list[int]:
        return []

    def close(self) -> None:
        """Nothing runs beside this process."""


if __name__ == "__main__":
    run(LanceDB())
