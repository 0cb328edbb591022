"""FAISS by itself: what a search and an index build cost without anything around them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import faiss as typed_faiss
import numpy as np
from numpy.typing import NDArray

# The stubs that faiss ships lack half of what it exports.
faiss: Any = typed_faiss
ALL_THREADS: int = faiss.omp_get_max_threads()
EF_CONSTRUCTION = 100
_EF_MAX = 4_096


class SelectedRows:
    """Rows that pass a filter, by their mask bool [R]: a bitmap that FAISS reads inside its search."""

    def __init__(self, mask: NDArray[np.bool_]) -> None:
        self.mask = mask
        bits = np.packbits(mask, bitorder="little")
        self.selector = faiss.IDSelectorBitmap(len(mask), faiss.swig_ptr(bits))
        faiss.add_to_referenced_objects(self.selector, bits)  # it reads them, and does not own them


Selected = SelectedRows | None


@dataclass(frozen=True)
class Effort:
    """``ef``: lists probed, or candidates a graph keeps. ``refine_factor``: candidates rescored for one
    result, None: the scores of the codes stand. ``recall``: as measured with it."""

    ef: int
    refine_factor: float | None
    parameters: Any
    recall: float = 0.0


class BareIndex:
    """The very file that the platform serves from, searched with FAISS's own calls and nothing else; where
    that pays, rescored on the same vectors."""

    def __init__(self, path: Path, kind: str, vectors_RD: NDArray[np.float32]) -> None:
        self._kind = kind
        self._base = faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC)
        # The inner product of all benchmarks; the mapped vectors are not copied.
        self._vectors, self._flat = vectors_RD, faiss.IndexFlatIP(vectors_RD.shape[1])
        codes = vectors_RD.reshape(-1).view(np.uint8)
        self._flat.codes = faiss.MaybeOwnedVectorUInt8.create_view(
            faiss.swig_ptr(codes), codes.size, self._flat.codes.owner
        )
        self._flat.ntotal = len(vectors_RD)
        self._refined = faiss.IndexRefine(self._base, self._flat)
        self._ef_max = int(self._base.nlist) if kind == "ivf" else _EF_MAX

    def exact(self, queries_QD: NDArray[np.float32], k: int, selected: Selected) -> NDArray[np.int64]:
        """Rows [Q, K] by a scan, which no index is asked for."""
        options = {} if selected is None else {"params": faiss.SearchParameters(sel=selected.selector)}
        with threads_of(ALL_THREADS):
            rows: NDArray[np.int64] = self._flat.search(queries_QD, k, **options)[1]
        return rows

    def search(
        self, queries_QD: NDArray[np.float32], k: int, effort: Effort, threads: int
    ) -> NDArray[np.int64]:
        """Rows [Q, K]."""
        return self.scored(queries_QD, k, effort, threads)[1]

    def scored(
        self, queries_QD: NDArray[np.float32], k: int, effort: Effort, threads: int
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Scores [Q, K] and rows [Q, K]."""
        index = self._base if effort.refine_factor is None else self._refined
        with threads_of(threads):
            scores, rows = index.search(queries_QD, k, params=effort.parameters)
        return scores, rows

    def effort(self, ef: int, refine_factor: float | None, selected: Selected) -> Effort:
        """Of this kind of index, its recall not measured."""
        options = {} if selected is None else {"sel": selected.selector}
        parameters = (
            faiss.SearchParametersIVF(nprobe=ef, **options)
            if self._kind == "ivf"
            else faiss.SearchParametersHNSW(efSearch=ef, **options)
        )
        if refine_factor is not None:
            parameters = faiss.IndexRefineSearchParameters(
                k_factor=refine_factor, base_index_params=parameters
            )
        return Effort(ef, refine_factor, parameters)

    def efforts(
        self,
        queries_QD: NDArray[np.float32],
        exact_QK: NDArray[np.int64],
        k: int,
        recall: float,
        refine_factors: Iterable[float | None],
        selected: Selected = None,
    ) -> list[Effort]:
        """For each way of rescoring, the least effort that finds ``recall`` of ``exact_QK`` among ``k`` rows;
        where none does, the best there is."""
        found = []
        for refine_factor in refine_factors:

            def measured(ef: int, refine_factor: float | None = refine_factor) -> Effort:
                return self._measured(queries_QD, exact_QK, k, ef, refine_factor, selected)

            found.append(_least(measured, recall, self._ef_max))
        reached = [effort for effort in found if effort.recall >= recall]
        return reached or [max(found, key=lambda effort: effort.recall)]

    def _measured(
        self,
        queries_QD: NDArray[np.float32],
        exact_QK: NDArray[np.int64],
        k: int,
        ef: int,
        refine_factor: float | None,
        selected: Selected,
    ) -> Effort:
        effort = self.effort(ef, refine_factor, selected)
        return replace(effort, recall=recall_of(self.search(queries_QD, k, effort, ALL_THREADS), exact_QK))


def _least(measured: Callable[[int], Effort], recall: float, ef_max: int) -> Effort:
    """The least effort that reaches ``recall``, else the greatest. Doubled first: great ones are slow."""
    low, effort = 1, measured(1)
    while effort.recall < recall and effort.ef < ef_max:
        low = effort.ef + 1
        effort = measured(min(2 * effort.ef, ef_max))
    while low < effort.ef and effort.recall >= recall:
        ef = (low + effort.ef) // 2
        lower = measured(ef)
        if lower.recall >= recall:
            effort = lower
        else:
            low = ef + 1
    return effort


def recall_of(found_QC: NDArray[np.int64], exact_QK: NDArray[np.int64]) -> float:
    """The share of the exact rows that were found; exact rows of -1 are none."""
    hits = sum(
        len(np.intersect1d(found, exact[exact >= 0])) for found, exact in zip(found_QC, exact_QK, strict=True)
    )
    return hits / max(1, int((exact_QK >= 0).sum()))


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
