"""FAISS by itself: what a search and an index build cost without anything around them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import faiss as typed_faiss
import numpy as np
from numpy.typing import NDArray

# The stubs that faiss ships lack half of what it exports.
faiss: Any = typed_faiss
ALL_THREADS: int = faiss.omp_get_max_threads()


class BareIndex:
    """The very file that the platform serves from, searched at the same effort."""

    def __init__(self, path: Path, kind: str, parameters: Mapping[str, Any]) -> None:
        self._index = faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC)
        self._effort = _effort(kind, parameters)

    def search(self, queries_QD: NDArray[np.float32], k: int, threads: int) -> NDArray[np.int64]:
        """Rows [Q, K]."""
        with threads_of(threads):
            _, rows = self._index.search(queries_QD, k, params=self._effort)
        found: NDArray[np.int64] = rows
        return found


def _effort(kind: str, parameters: Mapping[str, Any]) -> Any:
    if kind == "hnsw":
        return faiss.SearchParametersHNSW(efSearch=int(parameters["ef"]))
    if kind == "ivf":
        return faiss.IndexRefineSearchParameters(
            k_factor=float(parameters["refine_factor"]),
            base_index_params=faiss.SearchParametersIVF(nprobe=int(parameters["ef"])),
        )
    return None


def build(
    vectors: NDArray[np.float32], training: NDArray[np.float32], description: str, threads: int
) -> None:
    """Train and add, inner product."""
    index = faiss.index_factory(vectors.shape[1], description, faiss.METRIC_INNER_PRODUCT)
    with threads_of(ALL_THREADS):
        index.train(training)
    with threads_of(threads):
        index.add(vectors)


@contextmanager
def threads_of(count: int) -> Iterator[None]:
    """Let FAISS use ``count`` threads."""
    faiss.omp_set_num_threads(count)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(ALL_THREADS)
