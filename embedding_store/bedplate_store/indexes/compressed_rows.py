"""Scans of compressed vectors: FAISS knows no codes with a scale for each row, so pieces are decoded for it.

Legend: Q queries, K results, R rows, W stored bytes of a row, D dimension, C candidates of a query.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from bedplate.stored_vectors import Storage, StoredRows
from bedplate.wire.registry import Metric
from bedplate_store.indexes.faiss_views import FlatRows, score_few
from bedplate_store.indexes.selection import RowSelection
from bedplate_store.scoring import Rows, Scores, best, score_candidates

_DECODED_NUMBERS = 1 << 19
_DECODED_NUMBERS_FOR_MANY = 1 << 22
_MANY_QUERIES = 16
"""From here on a larger piece is worth leaving the cache for: BLAS scores all queries at once."""
_GATHERED_SHARE = 1 / 8


class CompressedRows:
    """int8 or int4 rows [R, W] in memory, scanned exactly: scores are those of the decoded vectors."""

    def __init__(self, stored_RW: StoredRows, metric: Metric, storage: Storage) -> None:
        self.metric: Metric = metric
        self._stored = stored_RW
        self._storage = storage

    def __len__(self) -> int:
        return len(self._stored)

    def search(
        self, queries_QD: NDArray[np.float32], k: int, among: RowSelection | None = None
    ) -> tuple[Scores, Rows]:
        """The exact best ``k`` rows: scores and rows [Q, K], padded with -inf and -1."""
        if among is not None and among.count == len(self):
            among = None
        if among is not None and among.count <= _GATHERED_SHARE * len(self):
            few = CompressedRows(among.gathered(self._stored), self.metric, self._storage)
            scores, places = few.search(queries_QD, k)
            return (scores, places) if among.count == 0 else (scores, _rows_at(places, among.rows))
        count = len(queries_QD)
        found = np.full((count, k), -np.inf, np.float32), np.full((count, k), -1, np.int64)
        for start, decoded, part in self._pieces(count, among):
            if count >= _MANY_QUERIES:
                scores, rows = FlatRows(decoded, self.metric).search(queries_QD, k, part)
            else:
                scores, rows = self._score(queries_QD, decoded, k, part)
            rows[rows >= 0] += start
            found = best(
                np.concatenate([found[0], scores], axis=1), np.concatenate([found[1], rows], axis=1), k
            )
        return found

    def _score(
        self,
        queries_QD: NDArray[np.float32],
        decoded_RD: NDArray[np.float32],
        k: int,
        among: RowSelection | None,
    ) -> tuple[Scores, Rows]:
        """A piece for few queries. A FAISS index for each piece would cost as much as the piece."""
        scores = score_few(queries_QD, decoded_RD, self.metric)
        if among is not None:
            scores[:, ~among.mask()] = -np.inf
        rows = np.broadcast_to(np.arange(len(decoded_RD)), scores.shape)
        scores, rows = best(scores, rows, k)
        return scores, np.where(np.isneginf(scores), -1, rows)

    def rescore(self, queries_QD: NDArray[np.float32], rows_QC: Rows, k: int) -> tuple[Scores, Rows]:
        """The best ``k`` of each query's candidates; all of them are gathered and decoded at once."""
        scores = score_candidates(queries_QD, self._stored, self._storage, rows_QC, self.metric)
        return best(scores, rows_QC, k)

    def _pieces(
        self, queries: int, among: RowSelection | None
    ) -> Iterator[tuple[int, NDArray[np.float32], RowSelection | None]]:
        """Where each piece begins, its vectors, and which of them are selected."""
        numbers = _DECODED_NUMBERS_FOR_MANY if queries >= _MANY_QUERIES else _DECODED_NUMBERS
        step = max(1, numbers // self._storage.dim)
        # One memory for all pieces: new pages cost as much as what is decoded into them.
        room = np.empty((min(step, len(self)), self._storage.dim), np.float32)
        for start in range(0, len(self), step):
            part = None if among is None else RowSelection.of(among.mask(start, start + step))
            if part is None or part.count:
                rows = self._stored[start : start + step]
                yield start, self._storage.decode(rows, "float32", room[: len(rows)]), part


def flat_rows(stored_RW: StoredRows, metric: Metric, storage: Storage) -> FlatRows | CompressedRows:
    """What scans a segment's rows, compressed or not."""
    if storage.compressed:
        return CompressedRows(stored_RW, metric, storage)
    return FlatRows(storage.decode(stored_RW), metric)


def _rows_at(places: Rows, rows: NDArray[np.int64]) -> Rows:
    return np.where(places < 0, -1, rows[places])
