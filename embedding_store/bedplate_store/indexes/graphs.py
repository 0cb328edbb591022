"""Building a graph, and what it was before the rows that it is tuned on came.

A row of the graph is no fair query: it has its neighbours at hand, and they have grown links to each other
through it. So the rows that are held back are added last, and the graph is written as it was before as well.

Legend: N rows, H rows held back, D dimension.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bedplate_store.indexes.faiss_views import faiss, threads, write_index
from bedplate_store.segments import Segment

_CHUNK_ROWS = 1 << 16
_LINKED_ROWS = 1 << 12
"""So many rows' links are moved at once: some 66 each."""


def build_graph(
    segment: Segment,
    trained: Path,
    path: Path,
    before: Path,
    held_back: NDArray[np.int64],
    *,
    holds_vectors: bool,
) -> None:
    """Add all rows to the empty graph ``trained`` and write it to ``path``, and to ``before`` what it was
    without the rows ``held_back`` [H]. In both files the numbers are rows.

    ``holds_vectors``: else the files have links alone.
    """
    index = faiss.read_index(str(trained))
    hnsw, rows = index.hnsw, segment.info.rows
    order = np.concatenate([np.delete(np.arange(rows), held_back), held_back])
    # A graph built by several threads differs from run to run.
    with threads(1):
        _add(index, segment, order[: rows - len(held_back)])
        early, entry, top = _links(index).copy(), hnsw.entry_point, hnsw.max_level
        _add(index, segment, order[rows - len(held_back) :])
    flags = 0 if holds_vectors else faiss.IO_FLAG_SKIP_STORAGE
    numbering = _Numbering(index, order)
    _links(index)[:] = numbering.of_links(_links(index))
    hnsw.entry_point = int(order[hnsw.entry_point])
    write_index(index, path, flags)
    _links(index)[:] = numbering.of_links(early)
    # The search begins there at the highest level it has, so the two belong together.
    hnsw.entry_point, hnsw.max_level = int(order[entry]), top
    write_index(index, before, flags)


class _Numbering:
    """From the order in which rows were added, ``order`` [N], to their own; levels and codes move at once."""

    def __init__(self, index: Any, order: NDArray[np.int64]) -> None:
        hnsw, rows = index.hnsw, len(order)
        self._order = order
        self._places = np.empty(rows, np.int64)
        self._places[order] = np.arange(rows)
        self._old = faiss.vector_to_array(hnsw.offsets).astype(np.int64)
        self._new = np.concatenate([[0], np.cumsum(np.diff(self._old)[self._places])])
        faiss.copy_array_to_vector(faiss.vector_to_array(hnsw.levels)[self._places], hnsw.levels)
        faiss.copy_array_to_vector(self._new.astype(np.uint64), hnsw.offsets)
        stored = faiss.downcast_index(index.storage).codes
        codes = faiss.rev_swig_ptr(stored.data(), stored.size()).reshape(rows, -1)
        codes[:] = codes[self._places]

    def of_links(self, links: NDArray[np.int32]) -> NDArray[np.int32]:
        """The links of all rows; -1 where the row was not there yet, as where it has fewer."""
        moved = np.full(self._new[-1], -1, np.int32)
        for start in range(0, len(self._order), _LINKED_ROWS):
            stop = min(start + _LINKED_ROWS, len(self._order))
            first, last = self._new[start], self._new[stop]
            shifts = self._old[self._places[start:stop]] - self._new[start:stop]
            sources = np.repeat(shifts, np.diff(self._new[start : stop + 1])) + np.arange(first, last)
            there = sources < len(links)
            numbers = np.full(len(sources), -1)
            numbers[there] = links[sources[there]]
            moved[first:last] = np.where(numbers < 0, -1, self._order[numbers])
        return moved


def _add(index: Any, segment: Segment, rows_N: NDArray[np.int64]) -> None:
    for start in range(0, len(rows_N), _CHUNK_ROWS):
        chunk = segment.scan[rows_N[start : start + _CHUNK_ROWS]]
        index.add(segment.info.storage.decode(chunk, "float32"))


def _links(index: Any) -> NDArray[np.int32]:
    """Of all rows and levels, one after the other, as the graph has them in memory."""
    links = index.hnsw.neighbors
    view: NDArray[np.int32] = faiss.rev_swig_ptr(links.data(), links.size())
    return view
