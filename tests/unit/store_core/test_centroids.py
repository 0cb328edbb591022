"""Centroids that are compared by an index that is handed in: it is used, and the files are the same."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pytest

from bedplate.wire.registry import Metric
from bedplate.wire.store import IndexSpecification
from bedplate_store.base_indexes import add_part, index_base, part_rows, train_index
from bedplate_store.indexes import centroid_search, index_key
from bedplate_store.indexes.centroids import GpuCentroids
from bedplate_store.objects import MemoryObjectStore
from bedplate_store.segments import write_segment
from bedplate_store.snapshot_bases import Base
from bedplate_store.spaces import SpaceKey

LISTS = IndexSpecification(kind="ivf", recall_target=0.9)
ROWS, DIM, PARTS = 2_100, 16, 3
METRICS = pytest.mark.parametrize("metric", ["l2", "inner_product"])


class Elsewhere:
    """Compares on the processor, where another one has a GPU, and keeps what it made."""

    def __init__(self) -> None:
        self.made: list[Counting] = []

    def __call__(self, lists: Any) -> Any:
        self.made.append(Counting(faiss.IndexFlat(lists.d, lists.metric_type)))
        return self.made[-1].index if not lists.is_trained else self.made[-1]


class Counting:
    """The index, and how many vectors were compared with what is in it."""

    def __init__(self, index: Any) -> None:
        self.index, self.add = index, index.add
        self.searched = 0

    def search(self, vectors: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        self.searched += len(vectors)
        found: tuple[np.ndarray, np.ndarray] = self.index.search(vectors, k)
        return found


@pytest.fixture
def objects() -> MemoryObjectStore:
    return MemoryObjectStore()


def make_base(objects: MemoryObjectStore, metric: Metric) -> Base:
    vectors = np.random.default_rng(5).standard_normal((ROWS, DIM), np.float32)
    segment = write_segment(objects, keys=np.arange(ROWS), vectors=vectors, dtype="float32", key_type="int64")
    return Base(SpaceKey("core", 1, "item"), segment, metric, 0, None)


@METRICS
def test_lists_are_trained_by_the_index_that_is_handed_in(
    objects: MemoryObjectStore, metric: Metric, tmp_path: Path
) -> None:
    base, elsewhere = make_base(objects, metric), Elsewhere()
    trained = train_index(objects, tmp_path, base, LISTS, centroids=elsewhere)
    assert trained is not None
    assert trained == train_index(objects, tmp_path, base, LISTS)
    [used] = elsewhere.made
    objects.get_file(index_key(trained.digest), tmp_path / "trained")
    lists = faiss.read_index(str(tmp_path / "trained"))
    assert used.index.metric_type == lists.metric_type
    centroids = lists.quantizer.reconstruct_n(0, lists.nlist)
    np.testing.assert_array_equal(used.index.reconstruct_n(0, used.index.ntotal), centroids)


@METRICS
def test_rows_are_added_by_the_index_that_is_handed_in(
    objects: MemoryObjectStore, metric: Metric, tmp_path: Path
) -> None:
    base, elsewhere = make_base(objects, metric), Elsewhere()
    trained = train_index(objects, tmp_path, base, LISTS)
    assert trained is not None
    spans = [part_rows(ROWS, part, PARTS) for part in range(PARTS)]
    made = [add_part(objects, tmp_path, base, trained, *span, centroids=elsewhere) for span in spans]
    assert [used.searched for used in elsewhere.made] == [ROWS // PARTS] * PARTS
    assert made == [add_part(objects, tmp_path, base, trained, *span) for span in spans]


@pytest.mark.parametrize("kind", ["ivf", "hnsw", "flat"])
def test_an_index_built_in_one_go_is_the_same(objects: MemoryObjectStore, kind: Any, tmp_path: Path) -> None:
    base, elsewhere = make_base(objects, "l2"), Elsewhere()
    specification = IndexSpecification(kind=kind)
    document = index_base(objects, tmp_path, base, specification, centroids=elsewhere)
    assert document == index_base(objects, tmp_path, base, specification)
    assert [used.searched for used in elsewhere.made] == ([0, ROWS] if kind == "ivf" else [])


def test_without_a_gpu_for_models_the_index_compares_by_itself(caplog: pytest.LogCaptureFixture) -> None:
    assert centroid_search("cpu") is None
    assert caplog.records == []


@pytest.mark.parametrize(("device", "number"), [("cuda", 0), ("cuda:1", 1)])
def test_models_and_lists_share_a_gpu(device: str, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(faiss, "get_num_gpus", lambda: 2)
    search = centroid_search(device)
    assert isinstance(search, GpuCentroids)
    assert search.number == number


@pytest.mark.parametrize(("device", "gpus"), [("cuda", 0), ("cuda:1", 1)])
def test_a_faiss_that_cannot_use_the_gpu_tells_what_would(
    device: str, gpus: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(faiss, "get_num_gpus", lambda: gpus)
    with caplog.at_level(logging.WARNING):
        assert centroid_search(device) is None
    [record] = caplog.records
    assert f"run on {device}, but FAISS sees {gpus} GPUs" in record.getMessage()
    assert "install faiss-gpu in place of faiss-cpu" in record.getMessage()
