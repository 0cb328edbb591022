"""Exact scores, in NumPy: what every index is measured against and what final ranks are made of.

Higher is nearer under either metric: the inner product, or the *negative squared* Euclidean distance.
Legend: Q queries, R rows, K results, D dimension, C candidates of a query.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bedplate.codecs import Vectors
from bedplate.stored_vectors import Storage, StoredRows
from bedplate.wire.registry import Metric

_CHUNK_ELEMENTS = 1 << 22

Scores = NDArray[np.float32]
Rows = NDArray[np.int64]


def score_candidates(
    queries_QD: Scores, stored_RW: StoredRows, storage: Storage, rows_QC: Rows, metric: Metric
) -> Scores:
    """Exact scores [Q, C] of each query's own candidate rows; -inf where a row is -1."""
    count, candidates = rows_QC.shape
    scores_QC = np.empty((count, candidates), np.float32)
    step = max(1, _CHUNK_ELEMENTS // max(1, candidates * storage.dim))
    for start in range(0, count, step):
        chunk = slice(start, start + step)
        rows = np.maximum(rows_QC[chunk], 0)
        gathered = stored_RW.take(rows.reshape(-1), axis=0, mode="clip")
        candidates_QCD = storage.decode(gathered, "float32").reshape(*rows.shape, storage.dim)
        if metric == "l2":
            candidates_QCD -= queries_QD[chunk, None, :]
            scores_QC[chunk] = -np.einsum("qcd,qcd->qc", candidates_QCD, candidates_QCD)
        else:
            scores_QC[chunk] = np.matmul(candidates_QCD, queries_QD[chunk, :, None])[:, :, 0]
    scores_QC[rows_QC < 0] = -np.inf
    return scores_QC


def scan(
    queries_QD: Scores, vectors: Vectors, metric: Metric, k: int, dead_R: NDArray[np.bool_] | None = None
) -> tuple[Scores, Rows]:
    """The exact best ``k`` rows: scores and rows [Q, K], padded with -inf and -1; ``dead_R`` never appear."""
    count = len(queries_QD)
    best_scores = np.full((count, k), -np.inf, np.float32)
    best_rows = np.full((count, k), -1, np.int64)
    step = max(1, _CHUNK_ELEMENTS // max(vectors.shape[1], count))
    for start in range(0, len(vectors), step):
        part = vectors[start : start + step].astype(np.float32, copy=False)
        scores = _all_pairs(queries_QD, part, metric)
        if dead_R is not None:
            scores[:, dead_R[start : start + step]] = -np.inf
        rows = np.broadcast_to(np.arange(start, start + len(part)), scores.shape)
        best_scores, best_rows = best(
            np.concatenate([best_scores, scores], axis=1), np.concatenate([best_rows, rows], axis=1), k
        )
    best_rows[np.isneginf(best_scores)] = -1
    return best_scores, best_rows


def best(scores_QC: Scores, rows_QC: Rows, k: int) -> tuple[Scores, Rows]:
    """The best ``k`` of each query's candidates, best first; of equal scores the leftmost candidate."""
    if scores_QC.shape[1] > 4 * k:
        # Everything not below the k-th best score, so that ties are cut by position and not by chance.
        kth = -np.partition(-scores_QC, k - 1, axis=1)[:, k - 1]
        width = int((scores_QC >= kth[:, None]).sum(axis=1).max())
        if width <= 4 * k:
            kept = np.sort(np.argpartition(-scores_QC, width - 1, axis=1)[:, :width], axis=1)
            scores_QC = np.take_along_axis(scores_QC, kept, axis=1)
            rows_QC = np.take_along_axis(rows_QC, kept, axis=1)
    order = np.argsort(-scores_QC, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(scores_QC, order, axis=1), np.take_along_axis(rows_QC, order, axis=1)


def some_lack(rows_QK: Rows, needed: int) -> bool:
    """Whether a query found fewer than ``needed`` rows, 1 to K. Those that it found come first."""
    if len(rows_QK) == 1:
        return rows_QK.item(needed - 1) < 0  # a minimum takes a tenth of the time of a search
    return len(rows_QK) > 0 and bool(rows_QK[:, needed - 1].min() < 0)


def _all_pairs(queries_QD: Scores, vectors_RD: Scores, metric: Metric) -> Scores:
    products_QR: Scores = queries_QD @ vectors_RD.T
    if metric == "inner_product":
        return products_QR
    products_QR *= 2
    products_QR -= np.einsum("rd,rd->r", vectors_RD, vectors_RD)[None, :]
    products_QR -= np.einsum("qd,qd->q", queries_QD, queries_QD)[:, None]
    return products_QR
