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
EF_CONSTRUCTION = 100


class BareIndex:
    """The very file that the platform serves from, searched at the same effort and rescored on the same
    vectors, with FAISS's own calls and nothing else."""

    def __init__(
        self, path: Path, kind: str, parameters: Mapping[str, Any], vectors_RD: NDArray[np.float32]
    ) -> None:
        self._base = faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC)
        # The inner product of all benchmarks; the mapped vectors are not copied.
        self._vectors, self._flat = vectors_RD, faiss.IndexFlatIP(vectors_RD.shape[1])
        codes = vectors_RD.reshape(-1).view(np.uint8)
        self._flat.codes = faiss.MaybeOwnedVectorUInt8.create_view(
            faiss.swig_ptr(codes), codes.size, self._flat.codes.owner
        )
        self._flat.ntotal = len(vectors_RD)
        self._index = faiss.IndexRefine(self._base, self._flat)
        ef = int(parameters["ef"])
        self._effort = faiss.IndexRefineSearchParameters(
            k_factor=float(parameters["refine_factor"]),
            base_index_params=faiss.SearchParametersIVF(nprobe=ef)
            if kind == "ivf"
            else faiss.SearchParametersHNSW(efSearch=ef),
        )

    def search(self, queries_QD: NDArray[np.float32], k: int, threads: int) -> NDArray[np.int64]:
        """Rows [Q, K]."""
        with threads_of(threads):
            _, rows = self._index.search(queries_QD, k, params=self._effort)
        found: NDArray[np.int64] = rows
        return found


def build(
    vectors: NDArray[np.float32], training: NDArray[np.float32], description: str, threads: int
) -> None:
    """Train and add, inner product."""
    index = faiss.index_factory(vectors.shape[1], description, faiss.METRIC_INNER_PRODUCT)
    if description.startswith("HNSW"):
        index.hnsw.efConstruction = EF_CONSTRUCTION
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
