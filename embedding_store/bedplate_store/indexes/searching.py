"""Searching an index: FAISS proposes rows and scores them again on the segment's vectors, in one call.

Legend: Q queries, K results, R rows, D dimension.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bedplate.wire.registry import Metric
from bedplate_store.indexes.compressed_rows import CompressedRows, flat_rows
from bedplate_store.indexes.documents import BuiltKind, IndexDocument
from bedplate_store.indexes.efforts import ChosenEffort, Effort, choose, read_points
from bedplate_store.indexes.faiss_views import faiss, search_raw, selector
from bedplate_store.indexes.selection import PARAMETERS_KEPT, RowSelection
from bedplate_store.scoring import Rows, Scores, some_lack
from bedplate_store.segments import Segment

EXACT_ROWS = 4_096
"""So many selected rows are scanned sooner than an index is searched for them."""
EF_MAX = 4_096
_WIDENED_BY = 8


class FlatIndex:
    """No index at all: the segment's vectors are scanned."""

    def __init__(self, segment: Segment, metric: Metric) -> None:
        self.kind: BuiltKind = "flat"
        self.parameters: Mapping[str, Any] = {}
        self.rows = segment.info.rows
        self._flat = flat_rows(segment.scan, metric, segment.info.storage)

    def search(
        self,
        queries_QD: NDArray[np.float32],
        k: int,
        *,
        ef: int | None = None,
        recall: float | None = None,
        among: RowSelection | None = None,
    ) -> tuple[Scores, Rows]:
        """As :meth:`VectorIndex.search`; exact whatever ``ef`` and ``recall`` say."""
        return self._flat.search(queries_QD, k, among)


class FaissIndex:
    """A FAISS index mapped from its file, over the vectors of the segment it was built from."""

    def __init__(self, index: Any, document: IndexDocument, segment: Segment, metric: Metric) -> None:
        self.kind: BuiltKind = document.kind
        self.parameters: Mapping[str, Any] = document.parameters
        self.rows = segment.info.rows
        self._metric: Metric = metric
        self._segment = segment
        self._exact = flat_rows(segment.vectors, metric, segment.info.storage)
        self._refines = bool(document.parameters["codes"])
        if isinstance(self._exact, CompressedRows):
            self._index = index  # FAISS cannot read such rows: candidates are scored again here
        elif self._refines:
            self._index = faiss.IndexRefine(index, self._exact.index)
        else:
            # A graph without vectors of its own walks over the segment's.
            index.storage, index.own_fields = self._exact.index, False
            self._index = index
        self._points = read_points(document.parameters) if "efforts" in document.parameters else []
        self._ef_max = int(document.parameters.get("lists", EF_MAX))
        self._prepared: dict[Hashable, Any] = {}

    def search(
        self,
        queries_QD: NDArray[np.float32],
        k: int,
        *,
        ef: int | None = None,
        recall: float | None = None,
        among: RowSelection | None = None,
    ) -> tuple[Scores, Rows]:
        """As :meth:`VectorIndex.search`."""
        if among is not None:
            if among.count <= EXACT_ROWS:
                return self._exact.search(queries_QD, k, among)
            if among.count == self.rows:
                among = None
            elif ef is None and not self._effort(k, recall, among).reached:
                return self._exact.search(queries_QD, k, among)
        scores, rows = self._ranked(queries_QD, k, self._parameters(k, ef, recall, among))
        needed = min(k, self.rows if among is None else among.count)
        if needed and some_lack(rows, needed):
            short = rows[:, needed - 1] < 0
            tried = self._effort(k, recall, among).ef if ef is None else min(ef, self._ef_max)
            scores[short], rows[short] = self._widened(queries_QD[short], k, needed, tried, recall, among)
        return scores, rows

    def search_with(
        self, queries_QD: NDArray[np.float32], k: int, effort: Effort, among: RowSelection | None = None
    ) -> tuple[Scores, Rows]:
        """Search at exactly this effort, and make up for nothing it misses: what tuning measures."""
        return self._ranked(queries_QD, k, self._parameters_of(effort, k, among))

    def _widened(
        self,
        queries_QD: NDArray[np.float32],
        k: int,
        needed: int,
        tried: int,
        recall: float | None,
        among: RowSelection | None,
    ) -> tuple[Scores, Rows]:
        """Search again where effort ``tried`` reached fewer than ``needed`` rows: lists are short, or a
        neighbourhood is deleted as a whole. A scan is the last resort: it takes longer than all of this.
        """
        ef, enough = tried, False
        while ef < self._ef_max:
            ef = min(_WIDENED_BY * ef, self._ef_max)
            scores, rows = self._ranked(queries_QD, k, self._parameters(k, ef, recall, among))
            # What is just enough lies at the rim of what was searched; nearer rows may lie beyond.
            sufficed, enough = enough, not some_lack(rows, needed)
            if sufficed or (enough and ef == self._ef_max):
                return scores, rows
        scan = flat_rows(self._segment.scan, self._metric, self._segment.info.storage)
        return scan.search(queries_QD, k, among)

    def _ranked(self, queries_QD: NDArray[np.float32], k: int, parameters: Any) -> tuple[Scores, Rows]:
        if not isinstance(self._exact, CompressedRows):
            return search_raw(self._index, queries_QD, k, self._metric, parameters)
        candidates, base = parameters
        _, rows = search_raw(self._index, queries_QD, candidates, self._metric, base)
        return self._exact.rescore(queries_QD, rows, k)

    def _parameters(self, k: int, ef: int | None, recall: float | None, among: RowSelection | None) -> Any:
        kept = self._prepared if among is None else among.prepared
        key = (k, ef, recall)
        made = kept.get(key)
        if made is None:
            effort: Effort = self._effort(k, recall, among)
            if ef is not None:
                effort = Effort(min(ef, self._ef_max), effort.refine_factor)
            made = self._parameters_of(effort, k, among)
            if len(kept) < PARAMETERS_KEPT:
                kept[key] = made
        return made

    def _effort(self, k: int, recall: float | None, among: RowSelection | None) -> ChosenEffort:
        if among is None:
            return self._chosen(k, recall, None)
        kept = among.prepared.get((k, recall))
        if kept is None:
            kept = self._chosen(k, recall, among)
            if len(among.prepared) < PARAMETERS_KEPT:
                among.prepared[k, recall] = kept
        return kept

    def _chosen(self, k: int, recall: float | None, among: RowSelection | None) -> ChosenEffort:
        target = recall or float(self.parameters["recall_target"])
        share = 1.0 if among is None else among.share
        return choose(self._points, k, target, share=share, ef_max=self._ef_max)

    def _parameters_of(self, effort: Effort, k: int, among: RowSelection | None) -> Any:
        candidates = math.ceil(k * effort.refine_factor) if isinstance(self._exact, CompressedRows) else k
        options = {} if among is None else {"sel": selector(among)}
        base = (
            faiss.SearchParametersIVF(nprobe=effort.ef, **options)
            if self.kind == "ivf"
            else faiss.SearchParametersHNSW(efSearch=max(effort.ef, candidates), **options)
        )
        if isinstance(self._exact, CompressedRows):
            return candidates, base
        if not self._refines:
            return base
        return faiss.IndexRefineSearchParameters(k_factor=effort.refine_factor, base_index_params=base)


def open_faiss(path: Path, document: IndexDocument, segment: Segment, metric: Metric) -> FaissIndex:
    """Map an index file into memory; nearly all of it stays in the page cache."""
    index = faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC)
    return FaissIndex(index, document, segment, metric)
