"""FAISS over memory that is already there: a segment's vectors as a FAISS index, without a copy.

Legend: Q queries, K results, R rows, D dimension.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import faiss as typed_faiss
import numpy as np
from numpy.typing import NDArray

from bedplate.codecs import Vectors
from bedplate.full_disks import named_full_disk
from bedplate.wire.registry import Metric
from bedplate_store.indexes.selection import GATHERED_BYTES_MAX, RowSelection
from bedplate_store.scoring import Rows, Scores, best, some_lack

# The stubs that faiss ships lack half of what it exports.
faiss: Any = typed_faiss

THREADS: int = faiss.omp_get_max_threads()
ALONE_QUERIES_MAX = 32
"""One thread searches an index for so many: waking a second takes longer than some queries, and two of them
spend a third more of the processors."""
SCANS_ALONE_MAX = 15
faiss.cvar.distance_compute_blas_threshold = 1_000
"""Numbers in a call's queries, 8 queries of 128 dimensions, from which FAISS compares them to all centroids
or rows of a scan by one matrix product. It waits for 128,000 if it is not told."""
_DECODED_ELEMENTS = 1 << 23
_GATHERED_ROWS_MAX = 1 << 16
_GATHERED_SHARE = 1 / 8
_WRITE_BYTES = 1 << 20


def faiss_metric(metric: Metric) -> int:
    """FAISS's number of the metric."""
    return int(faiss.METRIC_INNER_PRODUCT if metric == "inner_product" else faiss.METRIC_L2)


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Let FAISS use ``count`` threads for calls of this thread; OpenMP keeps the number for each caller."""
    faiss.omp_set_num_threads(count)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(THREADS)


def write_index(index: Any, path: Path, flags: int = 0) -> None:
    """Through a file of ours: where the disk fills up with the last bytes, FAISS's own writer only prints
    that it could not close its file, and returns as if all was well.

    Raises:
        StorageFull: no room; nothing is left in ``path``.
    """
    with named_full_disk(path.parent):
        try:
            with open(path, "wb") as file:
                faiss.write_index(index, faiss.PyCallbackIOWriter(file.write, _WRITE_BYTES), flags)
        except BaseException:
            path.unlink(missing_ok=True)
            raise


def selector(among: RowSelection) -> Any:
    """The selection as FAISS tests it, row by row."""
    made = among.prepared.get("selector")
    if made is None:
        # It points into ``among.bits``, which lives as long as the selection that holds it.
        made = faiss.IDSelectorBitmap(len(among.bits), faiss.swig_ptr(among.bits))
        among.prepared["selector"] = made
    return made


def search_raw(
    index: Any,
    queries_QD: NDArray[np.float32],
    k: int,
    metric: Metric,
    parameters: Any = None,
    alone_max: int = ALONE_QUERIES_MAX,
) -> tuple[Scores, Rows]:
    """Search any FAISS index: scores [Q, K], higher is nearer, and rows; -inf and -1 where it found fewer.

    Up to ``alone_max`` queries are searched for by one thread.
    """
    count = len(queries_QD)
    queries = np.ascontiguousarray(queries_QD, np.float32)
    scores = np.empty((count, k), np.float32)
    rows = np.empty((count, k), np.int64)
    faiss.omp_set_num_threads(THREADS if count > alone_max else 1)
    try:
        # What index.search does, without its checks, which cost as much as a search.
        index.search_c(
            count, faiss.swig_ptr(queries), k, faiss.swig_ptr(scores), faiss.swig_ptr(rows), parameters
        )
    finally:
        faiss.omp_set_num_threads(THREADS)
    if metric == "l2":
        np.negative(scores, out=scores)
    if some_lack(rows, k):
        scores[rows < 0] = -np.inf
    return scores, rows


def score_few(
    queries_QD: NDArray[np.float32], vectors_RD: NDArray[np.float32], metric: Metric
) -> NDArray[np.float32]:
    """Exact scores [Q, R] on this thread alone, and without an index over the vectors."""
    rows, dim = vectors_RD.shape
    scores = np.empty((len(queries_QD), rows), np.float32)
    compare = faiss.fvec_inner_products_ny if metric == "inner_product" else faiss.fvec_L2sqr_ny
    vectors = faiss.swig_ptr(np.ascontiguousarray(vectors_RD))
    for query, own in zip(np.ascontiguousarray(queries_QD), scores, strict=True):
        compare(faiss.swig_ptr(own), faiss.swig_ptr(query), vectors, dim, rows)
    if metric == "l2":
        np.negative(scores, out=scores)
    return scores


class FlatRows:
    """Vectors [R, D] in memory, float16 or float32, as FAISS scans and scores them: exact, and not copied."""

    def __init__(self, vectors_RD: Vectors, metric: Metric) -> None:
        self.metric: Metric = metric
        self.vectors = vectors_RD
        dim = vectors_RD.shape[1]
        half = vectors_RD.dtype == np.float16
        if half:
            self.index = faiss.IndexScalarQuantizer(dim, faiss.ScalarQuantizer.QT_fp16, faiss_metric(metric))
        else:
            self.index = faiss.IndexFlat(dim, faiss_metric(metric))
        self.index.is_trained = True  # neither has anything to learn
        self._half = half
        if len(vectors_RD):
            codes = vectors_RD.reshape(-1).view(np.uint8)
            assert np.shares_memory(codes, vectors_RD)
            owner = self.index.codes.owner  # of nothing: this object keeps the memory
            self.index.codes = faiss.MaybeOwnedVectorUInt8.create_view(
                faiss.swig_ptr(codes), codes.size, owner
            )
            self.index.ntotal = len(vectors_RD)

    def __len__(self) -> int:
        return len(self.vectors)

    def search(
        self, queries_QD: NDArray[np.float32], k: int, among: RowSelection | None = None
    ) -> tuple[Scores, Rows]:
        """The exact best ``k`` rows: scores and rows [Q, K], padded with -inf and -1."""
        if among is not None and among.count == len(self):
            among = None
        if among is not None and among.count <= min(_GATHERED_ROWS_MAX, _GATHERED_SHARE * len(self)):
            return self._search_few(queries_QD, k, among)
        if self._half and among is None and len(queries_QD) > SCANS_ALONE_MAX:
            return self._search_decoded(queries_QD, k)
        parameters = None if among is None else _selecting(among)
        return search_raw(self.index, queries_QD, k, self.metric, parameters, SCANS_ALONE_MAX)

    def _search_few(
        self, queries_QD: NDArray[np.float32], k: int, among: RowSelection
    ) -> tuple[Scores, Rows]:
        """Scan the selected rows alone; few of them are gathered once for all searches of the selection."""
        if among.count == 0:
            empty = (len(queries_QD), k)
            return np.full(empty, -np.inf, np.float32), np.full(empty, -1, np.int64)
        selected = among.rows
        few = among.prepared.get("gathered")
        if few is None:
            few = FlatRows(self.vectors[selected], self.metric)
            if among.keeps and few.vectors.nbytes <= GATHERED_BYTES_MAX:
                among.prepared["gathered"] = few
        scores, places = few.search(queries_QD, k)
        return scores, np.where(places < 0, -1, selected[places])

    def _search_decoded(self, queries_QD: NDArray[np.float32], k: int) -> tuple[Scores, Rows]:
        """Many queries: each piece is decoded to float32 once and scored against all of them by BLAS."""
        step = max(1, _DECODED_ELEMENTS // self.vectors.shape[1])
        parts = []
        for start in range(0, len(self), step):
            with threads(THREADS):
                decoded = self.index.reconstruct_n(start, min(step, len(self) - start))
            scores, rows = FlatRows(decoded, self.metric).search(queries_QD, k)
            rows[rows >= 0] += start
            parts.append((scores, rows))
            if len(parts) > 1:
                merged = best(
                    np.concatenate([part[0] for part in parts], axis=1),
                    np.concatenate([part[1] for part in parts], axis=1),
                    k,
                )
                parts = [merged]
        return parts[0]


def _selecting(among: RowSelection) -> Any:
    made = among.prepared.get("flat")
    if made is None:
        made = among.prepared["flat"] = faiss.SearchParameters(sel=selector(among))
    return made
