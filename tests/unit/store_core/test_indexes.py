"""Indexes: recall against exact search, the same bytes twice, and still k results when rows are dead."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from bedplate.wire.store import IndexSpecification
from bedplate_store import indexes
from bedplate_store.indexes import DeadRows, build_index, open_index, search_rows
from bedplate_store.mapping import sha256_file
from bedplate_store.objects import LocalObjectStore
from bedplate_store.scoring import best, scan, score_candidates
from bedplate_store.segments import Segment, open_segment, write_segment

ROWS, DIM = 3000, 16
METRICS = pytest.mark.parametrize("metric", ["inner_product", "l2"])
KINDS = pytest.mark.parametrize("kind", ["flat", "hnsw", "ivf"])


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Segment]:
    def segment(rows: int = ROWS, dtype: str = "float16", seed: int = 0, dim: int = DIM) -> Segment:
        folder = tmp_path_factory.mktemp("segment")
        random = np.random.default_rng(seed)
        centres = np.random.default_rng(99).normal(size=(40, dim))
        vectors = centres[random.integers(0, 40, rows)] + 0.4 * random.normal(size=(rows, dim))
        objects = LocalObjectStore(folder / "objects")
        info = write_segment(objects, keys=np.arange(rows), vectors=vectors, dtype=dtype, key_type="int64")
        return open_segment(objects, info.digest, folder / "cache")

    return segment


def _naive(queries: np.ndarray, vectors: np.ndarray, metric: str) -> np.ndarray:
    queries, vectors = queries.astype(np.float64), vectors.astype(np.float64)
    if metric == "inner_product":
        return queries @ vectors.T
    return -((queries[:, None] - vectors[None]) ** 2).sum(axis=2)


@METRICS
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_a_scan_is_exact(metric: str, dtype: str, make: Callable[..., Segment]) -> None:
    segment = make(dtype=dtype)
    queries = segment.vectors[:7].astype(np.float32) + 0.01
    dead = np.zeros(ROWS, np.bool_)
    dead[::3] = True
    scores, rows = scan(queries, segment.vectors, metric, 5, dead)
    expected = _naive(queries, segment.vectors, metric)
    assert np.allclose(np.take_along_axis(expected, rows, axis=1), scores, atol=1e-3)
    expected[:, dead] = -np.inf
    assert np.allclose(-np.sort(-expected, axis=1)[:, :5], scores, atol=1e-3)
    assert np.allclose(score_candidates(queries, segment.vectors, rows, metric), scores, atol=1e-3)


def test_a_scan_of_fewer_rows_than_asked_for_is_padded() -> None:
    scores, rows = scan(np.ones((2, 3), np.float32), np.ones((2, 3), np.float16), "l2", 4)
    assert rows.tolist() == [[0, 1, -1, -1]] * 2
    assert np.isneginf(scores[:, 2:]).all()


def test_equal_scores_keep_their_order_however_many_there_are() -> None:
    scores = np.zeros((1, 100), np.float32)
    scores[0, 50] = 1
    assert best(scores, np.arange(100)[None], 3)[1].tolist() == [[50, 0, 1]]


@KINDS
@METRICS
def test_every_kind_reaches_the_recall_target(
    kind: str, metric: str, make: Callable[..., Segment], tmp_path: Path
) -> None:
    segment = make()
    specification = IndexSpecification(kind=kind, recall_target=0.95)
    built = build_index(segment, specification, metric, directory=tmp_path)
    assert built.kind == kind
    assert built.recall_at_10 is not None
    assert built.recall_at_10 >= 0.95
    assert (built.digest, built.bytes) == (sha256_file(built.path), built.path.stat().st_size)
    # The recorded recall is no artefact of the sample: fresh queries agree.
    index = open_index(built.path, built.to_document(), metric)
    queries = make(seed=1).vectors[:300].astype(np.float32)
    scores, rows = search_rows(index, segment.vectors, queries, metric, 10)
    exact = -np.sort(-_naive(queries, segment.vectors, metric), axis=1)[:, :10]
    recall = (scores >= exact[:, 9:] - 1e-3).mean()
    assert recall >= 0.9
    assert np.allclose(score_candidates(queries, segment.vectors, rows, metric), scores, atol=1e-3)


@KINDS
def test_the_same_input_gives_the_same_bytes(
    kind: str, make: Callable[..., Segment], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    segment = make(rows=1500)
    specification = IndexSpecification(kind=kind)
    first = build_index(segment, specification, "inner_product", directory=tmp_path)
    monkeypatch.setattr(indexes, "_THREADS", 1 if indexes._THREADS > 1 else 2)
    second = build_index(segment, specification, "inner_product", directory=tmp_path)
    assert first.to_document() == second.to_document()
    assert first.path.read_bytes() == second.path.read_bytes()


@KINDS
@METRICS
def test_dead_rows_never_appear_and_there_are_still_k(
    kind: str, metric: str, make: Callable[..., Segment], tmp_path: Path
) -> None:
    segment = make()
    built = build_index(segment, IndexSpecification(kind=kind), metric, directory=tmp_path)
    index = open_index(built.path, built.to_document(), metric)
    queries = segment.vectors[:5].astype(np.float32)
    # The whole neighbourhood of the queries is gone: the worst case for an approximate index.
    order = np.argsort(-_naive(queries, segment.vectors, metric).max(axis=0))
    for alive in (20, 3):
        mask = np.ones(ROWS, np.bool_)
        mask[order[-alive:]] = False
        scores, rows = search_rows(
            index, segment.vectors, queries, metric, 10, dead=DeadRows(mask, ROWS - alive)
        )
        assert ((rows >= 0).sum(axis=1) == min(10, alive)).all()
        assert not mask[rows[rows >= 0]].any()
        assert np.allclose(scores, scan(queries, segment.vectors, metric, 10, mask)[0], atol=1e-3)


def test_more_results_than_rows_are_padded(make: Callable[..., Segment], tmp_path: Path) -> None:
    segment = make(rows=4)
    built = build_index(segment, IndexSpecification(kind="ivf"), "l2", directory=tmp_path)
    assert built.kind == "flat"  # too few to train anything
    index = open_index(built.path, built.to_document(), "l2")
    scores, rows = search_rows(index, segment.vectors, np.zeros((2, DIM), np.float32), "l2", 9)
    assert (np.sort(rows, axis=1) == [[-1] * 5 + [0, 1, 2, 3]] * 2).all()
    assert np.isneginf(scores[rows < 0]).all()


@pytest.mark.parametrize("rows", [0, 1])
def test_a_space_of_none_or_one_can_be_indexed(
    rows: int, make: Callable[..., Segment], tmp_path: Path
) -> None:
    segment = make(rows=rows)
    built = build_index(segment, IndexSpecification(), "inner_product", directory=tmp_path)
    assert built.recall_at_10 is None
    index = open_index(built.path, built.to_document(), "inner_product")
    _, found = search_rows(index, segment.vectors, np.ones((1, DIM), np.float32), "inner_product", 2)
    assert (found >= 0).sum() == rows


@pytest.mark.parametrize("hard", [False, True])
def test_auto_measures_before_it_chooses(
    hard: bool, make: Callable[..., Segment], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Clustered vectors suit inverted lists; vectors without structure need the graph."""
    monkeypatch.setattr(indexes, "_EXACT_BELOW_ROWS", 1000)
    segment = make(dim=16)
    if hard:
        objects = LocalObjectStore(tmp_path / "objects")
        noise = np.random.default_rng(3).normal(size=(4000, 64))
        info = write_segment(objects, keys=np.arange(4000), vectors=noise, dtype="float16", key_type="int64")
        segment = open_segment(objects, info.digest, tmp_path)
    directory = tmp_path / "built"
    built = build_index(segment, IndexSpecification(recall_target=0.9), "l2", directory=directory)
    assert built.kind == ("hnsw" if hard else "ivf")
    assert list(directory.iterdir()) == [built.path]


def test_an_unreachable_target_records_what_was_reached(
    make: Callable[..., Segment], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        indexes, "_efforts", lambda kind, parameters: iter([{**parameters, "ef": 1, "refine_factor": 1}])
    )
    specification = IndexSpecification(kind="ivf", recall_target=1)
    built = build_index(make(), specification, "l2", directory=tmp_path)
    assert built.recall_at_10 is not None
    assert 0 < built.recall_at_10 < 1
