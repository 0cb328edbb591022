"""What compression cost, on samples that know the answer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bedplate.wire.registry import Dtype
from bedplate_store.compression import SAMPLED_ROWS, keep_sample, measure, sample_rows
from bedplate_store.merging import merge_segments
from bedplate_store.objects import MemoryObjectStore
from bedplate_store.segments import open_segment, write_segment

DIM = 64


def vectors(rows: int, seed: int = 0) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.random.default_rng(seed).standard_normal((rows, DIM)).astype(np.float32)


def partition(
    objects: MemoryObjectStore, first: int, embedded: Any, dtype: Dtype, sample: int
) -> tuple[str, str | None]:
    keys = np.arange(first, first + len(embedded))
    info = write_segment(objects, keys=keys, vectors=embedded, dtype=dtype, key_type="int64")
    return info.digest, keep_sample(objects, keys, embedded, info, sample)


@pytest.mark.parametrize(
    ("dtype", "error", "recall"), [("int8", (0.004, 0.01), 0.95), ("int4", (0.06, 0.11), 0.6)]
)
@pytest.mark.parametrize("metric", ["inner_product", "l2"])
def test_error_and_recall_of_two_partitions(
    tmp_path: Path, dtype: Dtype, error: tuple[float, float], recall: float, metric: Any
) -> None:
    objects = MemoryObjectStore()
    parts = [partition(objects, first, vectors(1500, first), dtype, 1000) for first in (0, 1500)]
    base = merge_segments(objects, tmp_path, [segment for segment, _ in parts])
    samples = [sample for _, sample in parts if sample is not None]
    found = measure(objects, tmp_path, base, samples, metric)
    assert found is not None
    assert found.rows == 2000
    assert error[0] < found.relative_error_mean < error[1]
    assert found.relative_error_mean < found.relative_error_p99 < 2 * found.relative_error_mean
    assert found.recall_at_10 is not None
    assert recall < found.recall_at_10 < 1
    assert found == measure(objects, tmp_path, base, samples, metric)


def test_what_compresses_without_loss_costs_nothing(tmp_path: Path) -> None:
    objects = MemoryObjectStore()
    exact = np.random.default_rng(0).integers(-127, 128, (300, DIM)).astype(np.float32)
    exact[:, 0] = 127  # so the scale is 1
    segment, sample = partition(objects, 0, exact, "int8", 300)
    assert sample is not None
    found = measure(objects, tmp_path, open_segment(objects, segment, tmp_path).info, [sample], "l2")
    assert found is not None
    assert (found.relative_error_mean, found.relative_error_p99, found.recall_at_10) == (0, 0, 1)


def test_replaced_and_deleted_rows_tell_nothing(tmp_path: Path) -> None:
    objects = MemoryObjectStore()
    segment, sample = partition(objects, 0, vectors(100), "int8", 100)
    assert sample is not None
    write = write_segment(
        objects,
        keys=np.arange(40),
        vectors=100 * vectors(40, 1),
        tombstones=np.arange(90, 100),
        dtype="int8",
        key_type="int64",
    )
    base = merge_segments(objects, tmp_path, [segment, write.digest])
    found = measure(objects, tmp_path, base, [sample], "inner_product")
    assert found is not None
    assert found.rows == 50
    assert found.relative_error_p99 < 0.02


def test_nothing_is_measured_where_nothing_was_compressed(tmp_path: Path) -> None:
    objects = MemoryObjectStore()
    segment, sample = partition(objects, 0, vectors(10), "float16", 10)
    assert sample is None
    assert measure(objects, tmp_path, open_segment(objects, segment, tmp_path).info, [], "l2") is None
    assert partition(objects, 0, vectors(0), "int8", 10)[1] is None


def test_samples_grow_with_the_space_only_by_a_few_rows_of_each_partition() -> None:
    assert [sample_rows(count) for count in (1, 3, 4096)] == [SAMPLED_ROWS, 6667, 16]
