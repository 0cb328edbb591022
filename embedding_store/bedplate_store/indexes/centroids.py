"""Comparing rows with the centroids of inverted lists, which is most of what building the lists costs: by the
index itself, or on a GPU.

A GPU only tells which centroid is the nearest. The index is of the same kind and in the same files, and it is
tuned and searched on processors; rounding may put a row that lies between two lists into the other one.

Legend: R rows, D dimension.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from bedplate_store.indexes.faiss_views import faiss

logger = logging.getLogger(__name__)


class CentroidSearch(Protocol):
    """Where centroids are compared. An index for them is enough: FAISS trains with it, adding searches it."""

    def __call__(self, lists: Any) -> Any:
        """A new empty FAISS index that searches exactly, for vectors and by the metric of ``lists``."""


class GpuCentroids:
    """On the GPU of that number, whose memory is free again once the index is gone."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __call__(self, lists: Any) -> Any:
        flat = faiss.IndexFlat(lists.d, lists.metric_type)
        return faiss.index_cpu_to_gpu(faiss.StandardGpuResources(), self.number, flat)


def centroid_search(device: str) -> CentroidSearch | None:
    """What a process builds inverted lists with whose models run on ``device`` ("cpu", "cuda", "cuda:1");
    None: the index itself.

    Where FAISS cannot use the GPU that models use, a warning tells so, and what would change that.
    """
    kind, _, number = device.partition(":")
    if kind != "cuda":
        return None
    wanted, gpus = int(number or 0), faiss.get_num_gpus()
    if wanted < gpus:
        return GpuCentroids(wanted)
    logger.warning(
        "models run on %s, but FAISS sees %d GPUs: inverted lists are built on the processor; "
        "to build them on the GPU, install faiss-gpu in place of faiss-cpu",
        device,
        gpus,
    )
    return None


def train_lists(lists: Any, vectors_RD: NDArray[np.float32], search: CentroidSearch) -> None:
    """Train inverted lists, comparing by ``search``."""
    near = search(lists)
    lists.clustering_index = near
    try:
        lists.train(vectors_RD)
    finally:
        lists.clustering_index = None  # not owned, so it must not outlive ``near``


def adder(lists: Any, search: CentroidSearch) -> Callable[[NDArray[np.float32], NDArray[np.int64]], None]:
    """Adds vectors [R, D] under ids [R] to trained lists, comparing by ``search``."""
    near = search(lists)
    near.add(lists.quantizer.reconstruct_n(0, lists.nlist))

    def add(vectors_RD: NDArray[np.float32], ids_R: NDArray[np.int64]) -> None:
        _, numbers_R1 = near.search(vectors_RD, 1)
        arrays = [np.ascontiguousarray(array) for array in (vectors_RD, ids_R, numbers_R1)]
        lists.add_core(len(vectors_RD), *map(faiss.swig_ptr, arrays))

    return add
