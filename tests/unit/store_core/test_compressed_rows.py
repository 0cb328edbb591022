"""Searching compressed rows: exact on what they decode to, and through indexes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bedplate.errors import NonFiniteVectors
from bedplate.stored_vectors import LARGEST, Storage
from bedplate.wire.registry import Dtype, Metric
from bedplate.wire.store import IndexSpecification
from bedplate_store.indexes import RowSelection, build_index, flat_rows, open_index
from bedplate_store.objects import MemoryObjectStore
from bedplate_store.scoring import scan
from bedplate_store.segments import Segment, open_segment, write_segment

DIM = 40
METRICS: tuple[Metric, ...] = ("inner_product", "l2")
COMPRESSED: tuple[Dtype, ...] = ("int8", "int4")


def made(tmp_path: Path, rows: int, dtype: Dtype, dim: int = DIM) -> Segment:
    random = np.random.default_rng(0)
    centres = random.standard_normal((50, dim))
    vectors = centres[random.integers(0, 50, rows)] + 0.5 * random.standard_normal((rows, dim))
    objects = MemoryObjectStore()
    info = write_segment(objects, keys=np.arange(rows), vectors=vectors, dtype=dtype, key_type="int64")
    return open_segment(objects, info.digest, tmp_path)


@pytest.mark.parametrize("dtype", COMPRESSED)
@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("queries", [1, 20])
@pytest.mark.parametrize("share", [None, 0.0, 0.01, 0.5, 1.0])
def test_a_scan_finds_the_best_of_what_is_answered(
    tmp_path: Path, dtype: Dtype, metric: Metric, queries: int, share: float | None
) -> None:
    segment = made(tmp_path, 20_000, dtype)
    decoded = segment.info.storage.decode(segment.scan, "float32")
    asked = np.random.default_rng(1).standard_normal((queries, DIM)).astype(np.float32)
    mask = np.random.default_rng(2).random(20_000) < (1 if share is None else share)
    among = None if share is None else RowSelection.of(mask)
    scores, rows = flat_rows(segment.scan, metric, segment.info.storage).search(asked, 10, among)
    expected, expected_rows = scan(asked, decoded, metric, 10, ~mask)
    assert np.allclose(scores, expected, rtol=1e-4, atol=1e-4)
    assert ((rows < 0) == (expected_rows < 0)).all()
    assert mask[rows[rows >= 0]].all()


@pytest.mark.parametrize("dtype", COMPRESSED)
@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("kind", ["ivf", "hnsw"])
def test_an_index_reaches_its_recall_with_scores_of_the_rows(
    tmp_path: Path, dtype: Dtype, metric: Metric, kind: str
) -> None:
    segment = made(tmp_path, 4_000, dtype)
    decoded = segment.info.storage.decode(segment.scan, "float32")
    specification = IndexSpecification(kind=kind, recall_target=0.9)  # type: ignore[arg-type]  # from a list
    built = build_index(segment, specification, metric, directory=tmp_path)
    assert built.document.recall_at_10 is not None
    assert built.document.recall_at_10 >= 0.9
    assert built.document.parameters["codes"] == ("SQ4" if dtype == "int4" else "SQ8")
    index = open_index(built.paths, built.document, segment, metric)
    asked = decoded[::40]
    for among in (None, RowSelection.of(np.arange(4_000) % 2 == 0)):
        scores, rows = index.search(asked, 10, among=among)
        exact, _ = scan(asked, decoded, metric, 10, None if among is None else ~among.mask())
        hits = (scores >= exact[:, 9:] - 1e-3).mean()
        assert hits >= 0.85
        products = np.einsum("qd,qkd->qk", asked, decoded[rows])
        if metric == "inner_product":
            assert np.allclose(scores, products, rtol=1e-4, atol=1e-4)
        assert (np.diff(scores, axis=1) <= 0).all()


@pytest.mark.parametrize("dtype", COMPRESSED)
def test_the_files_are_small(tmp_path: Path, dtype: Dtype) -> None:
    half, small = made(tmp_path, 500, "float16", 256), made(tmp_path, 500, dtype, 256)
    keys = 500 * 8
    share = (small.info.bytes - keys) / (half.info.bytes - keys)
    assert share == pytest.approx(0.504 if dtype == "int8" else 0.281, abs=0.001)
    assert small.vectors_path is not None
    assert small.vectors_path.stat().st_size == 500 * Storage(dtype, 256).row_bytes


@pytest.mark.parametrize("dtype", COMPRESSED)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 65_504, -1e30])
def test_what_cannot_be_compressed_is_refused(dtype: Dtype, bad: float) -> None:
    objects = MemoryObjectStore()
    vectors = np.full((3, 2), LARGEST)
    write_segment(objects, keys=[1, 2, 3], vectors=vectors, dtype=dtype, key_type="int64")
    written = len(list(objects.list("")))
    vectors[1, 1] = bad
    with pytest.raises(NonFiniteVectors, match="row 1 holds") as raised:
        write_segment(objects, keys=[1, 2, 3], vectors=vectors, dtype=dtype, key_type="int64")
    assert raised.value.context["row"] == 1
    assert len(list(objects.list(""))) == written
