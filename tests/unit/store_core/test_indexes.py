"""Indexes: recall against exact search, the same bytes twice, and still k results when rows are dead."""

import functools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from bedplate.wire.registry import Metric
from bedplate.wire.store import IndexSpecification
from bedplate_store.indexes import (
    BuiltIndex,
    FlatIndex,
    RowSelection,
    VectorIndex,
    build_index,
    building,
    open_index,
    searching,
)
from bedplate_store.indexes.efforts import Effort
from bedplate_store.indexes.faiss_views import FlatRows
from bedplate_store.indexes.searching import FaissIndex
from bedplate_store.indexes.tuning import hold_back
from bedplate_store.mapping import sha256_file
from bedplate_store.objects import LocalObjectStore
from bedplate_store.scoring import best, scan, score_candidates
from bedplate_store.segments import Segment, open_segment, write_segment

ROWS, DIM = 3000, 16
METRICS = pytest.mark.parametrize("metric", ["inner_product", "l2"])
DTYPES = pytest.mark.parametrize("dtype", ["float16", "float32"])
KINDS = pytest.mark.parametrize("kind", ["flat", "hnsw", "ivf"])


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Segment]:
    @functools.cache
    def segment(rows: int = ROWS, dtype: str = "float16", seed: int = 0, dim: int = DIM) -> Segment:
        folder = tmp_path_factory.mktemp("segment")
        random = np.random.default_rng(seed)
        centres = np.random.default_rng(99).normal(size=(40, dim))
        vectors = centres[random.integers(0, 40, rows)] + 0.4 * random.normal(size=(rows, dim))
        objects = LocalObjectStore(folder / "objects")
        info = write_segment(objects, keys=np.arange(rows), vectors=vectors, dtype=dtype, key_type="int64")
        return open_segment(objects, info.digest, folder / "cache")

    return segment


@pytest.fixture(scope="module")
def build(
    make: Callable[..., Segment], tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., BuiltIndex]:
    """An index of :data:`ROWS` rows, built once for all tests that ask for the same."""

    @functools.cache
    def built(kind: str, metric: Metric, dtype: str = "float16", dim: int = DIM) -> BuiltIndex:
        segment = make(dtype=dtype, dim=dim)
        directory = tmp_path_factory.mktemp("index")
        return build_index(segment, IndexSpecification(kind=kind), metric, directory=directory)

    return built


def _opened(built: BuiltIndex, segment: Segment, metric: Metric) -> VectorIndex:
    return open_index(built.paths, built.document, segment, metric)


def _naive(queries: np.ndarray, vectors: np.ndarray, metric: str) -> np.ndarray:
    queries, vectors = queries.astype(np.float64), vectors.astype(np.float64)
    if metric == "inner_product":
        return queries @ vectors.T
    return -((queries[:, None] - vectors[None]) ** 2).sum(axis=2)


@METRICS
@DTYPES
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
    assert np.allclose(
        score_candidates(queries, segment.vectors, segment.info.storage, rows, metric), scores, atol=1e-3
    )


def test_a_scan_of_fewer_rows_than_asked_for_is_padded() -> None:
    scores, rows = scan(np.ones((2, 3), np.float32), np.ones((2, 3), np.float16), "l2", 4)
    assert rows.tolist() == [[0, 1, -1, -1]] * 2
    assert np.isneginf(scores[:, 2:]).all()


def test_equal_scores_keep_their_order_however_many_there_are() -> None:
    scores = np.zeros((1, 100), np.float32)
    scores[0, 50] = 1
    assert best(scores, np.arange(100)[None], 3)[1].tolist() == [[50, 0, 1]]


@METRICS
@DTYPES
@pytest.mark.parametrize("queries", [1, 7, 40])
@pytest.mark.parametrize("selected", ["all", "most", "few", "none"])
def test_faiss_over_the_segments_own_vectors_scores_as_the_reference(
    metric: Metric, dtype: str, queries: int, selected: str, make: Callable[..., Segment]
) -> None:
    segment = make(dtype=dtype)
    mask = {
        "all": np.ones(ROWS, np.bool_),
        "most": np.arange(ROWS) % 3 > 0,
        "few": np.arange(ROWS) % 500 == 7,  # gathered first
        "none": np.zeros(ROWS, np.bool_),
    }[selected]
    asked = make(seed=1).vectors[:queries].astype(np.float32)
    scores, rows = FlatRows(segment.scan, metric).search(asked, 9, RowSelection.of(mask))
    expected, expected_rows = scan(asked, segment.scan, metric, 9, ~mask)
    assert np.allclose(scores, expected, rtol=1e-5, atol=1e-5)
    # Where rows tie within rounding their order may differ; the rows found have the scores said.
    assert ((rows < 0) == (expected_rows < 0)).all()
    assert np.allclose(
        score_candidates(asked, segment.scan, segment.info.storage, rows, metric),
        scores,
        rtol=1e-5,
        atol=1e-5,
    )
    assert mask[rows[rows >= 0]].all()


@METRICS
def test_ties_are_all_found(metric: Metric) -> None:
    vectors = np.ones((50, 4), np.float16)
    scores, rows = FlatRows(vectors, metric).search(np.ones((1, 4), np.float32), 50)
    assert sorted(rows[0].tolist()) == list(range(50))
    assert (scores == scores[0, 0]).all()


def test_decoding_in_pieces_changes_nothing(
    make: Callable[..., Segment], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bedplate_store.indexes.faiss_views._DECODED_ELEMENTS", 700 * DIM)
    segment = make()
    queries = segment.vectors[:30].astype(np.float32)
    scores, rows = FlatRows(segment.scan, "l2").search(queries, 5)
    assert np.allclose(scores, scan(queries, segment.scan, "l2", 5)[0], atol=1e-4)
    assert (rows[:, 0] == np.arange(30)).all()


@KINDS
@METRICS
@DTYPES
def test_every_kind_reaches_the_recall_target(
    kind: str,
    metric: Metric,
    dtype: str,
    make: Callable[..., Segment],
    build: Callable[..., BuiltIndex],
) -> None:
    segment = make(dtype=dtype)
    built = build(kind, metric, dtype)
    document = built.document
    assert document.kind == kind
    assert document.recall_at_10 is not None
    assert document.recall_at_10 >= 0.95
    assert document.recall_at_100 is not None
    assert document.recall_at_100 >= 0.95
    if not built.paths:
        assert (kind, document.has_file, document.bytes) == ("flat", False, 0)
    else:
        assert (document.digest, document.bytes) == (
            sha256_file(built.paths[0]),
            built.paths[0].stat().st_size,
        )
    # The recorded recall is no artefact of the held-back queries: fresh ones agree.
    queries = make(seed=1).vectors[:300].astype(np.float32)
    for k in (10, 100):
        scores, rows = _opened(built, segment, metric).search(queries, k)
        exact = -np.sort(-_naive(queries, segment.vectors, metric), axis=1)[:, :k]
        recall = (scores >= exact[:, k - 1 :] - 1e-3).mean()
        assert recall >= 0.93
        assert np.allclose(
            score_candidates(queries, segment.vectors, segment.info.storage, rows, metric),
            scores,
            rtol=1e-5,
            atol=1e-5,
        )


@pytest.mark.parametrize("kind", ["hnsw", "ivf"])
def test_a_request_may_ask_for_more_or_less_than_the_target(
    kind: str, make: Callable[..., Segment], build: Callable[..., BuiltIndex]
) -> None:
    index = _opened(build(kind, "inner_product", dim=32), make(dim=32), "inner_product")
    queries = make(seed=1, dim=32).vectors[:300].astype(np.float32)
    exact = -np.sort(-_naive(queries, make(dim=32).vectors, "inner_product"), axis=1)[:, 9:10]

    def recall(**asked: float | int) -> float:
        return float((index.search(queries, 10, **asked)[0] >= exact - 1e-3).mean())

    assert recall(recall=0.99) >= 0.98
    assert recall(recall=0.99) >= recall() >= recall(recall=0.9)
    assert recall(ef=1) <= recall(ef=512)


@KINDS
def test_the_same_input_gives_the_same_bytes(
    kind: str, make: Callable[..., Segment], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    segment = make(rows=1500)
    specification = IndexSpecification(kind=kind)
    first = build_index(segment, specification, "inner_product", directory=tmp_path)
    monkeypatch.setattr(building, "THREADS", 1 if building.THREADS > 1 else 2)
    second = build_index(segment, specification, "inner_product", directory=tmp_path)
    assert first.document == second.document
    for one, other in zip(first.paths, second.paths, strict=True):
        assert one.read_bytes() == other.read_bytes()


def test_parts_added_apart_and_merged_find_the_same(
    make: Callable[..., Segment], build: Callable[..., BuiltIndex], tmp_path: Path
) -> None:
    segment = make()
    whole = build("ivf", "l2")
    how = building.recipe("ivf", ROWS, "float16")
    building.train(segment, how, "l2", tmp_path / "trained")
    parts = [tmp_path / f"part-{start}" for start in (0, 1000, 2000)]
    for start, part in zip((0, 1000, 2000), parts, strict=True):
        building.add_rows(segment, tmp_path / "trained", part, start, start + 1000)
    building.merge_parts(parts, tmp_path / "merged")
    held_back = hold_back(segment, "l2", 0)
    merged = building.finish(segment, how, "l2", [tmp_path / "merged"], target=0.95, held_back=held_back)
    queries = make(seed=1).vectors[:50].astype(np.float32)
    assert merged.document.parameters == whole.document.parameters
    ours, theirs = (_opened(built, segment, "l2").search(queries, 10) for built in (merged, whole))
    assert np.array_equal(ours[0], theirs[0])
    assert np.array_equal(ours[1], theirs[1])


@KINDS
@METRICS
@pytest.mark.parametrize("alive", [1500, 20, 3, 0])
@pytest.mark.parametrize("gathers", [True, False])
def test_rows_that_are_not_selected_never_appear_and_there_are_still_k(
    kind: str,
    metric: Metric,
    alive: int,
    gathers: bool,
    make: Callable[..., Segment],
    build: Callable[..., BuiltIndex],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The whole neighbourhood of the queries is gone: the worst case for an approximate index."""
    monkeypatch.setattr(searching, "EXACT_ROWS", 100 if gathers else 0)
    segment = make()
    built = build(kind, metric)
    queries = segment.vectors[:5].astype(np.float32)
    order = np.argsort(-_naive(queries, segment.vectors, metric).max(axis=0))
    mask = np.zeros(ROWS, np.bool_)
    mask[order[ROWS - alive :]] = True
    scores, rows = _opened(built, segment, metric).search(queries, 10, among=RowSelection.of(mask))
    assert ((rows >= 0).sum(axis=1) == min(10, alive)).all()
    assert mask[rows[rows >= 0]].all()
    if alive <= (20 if gathers else 3):
        assert np.allclose(scores, scan(queries, segment.vectors, metric, 10, ~mask)[0], atol=1e-3)


def test_where_a_neighbourhood_is_gone_the_search_widens_before_all_rows_are_scanned(
    make: Callable[..., Segment], build: Callable[..., BuiltIndex], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(searching, "EXACT_ROWS", 0)
    segment = make(dim=32)
    index = _opened(build("ivf", "l2", dim=32), segment, "l2")
    assert isinstance(index, FaissIndex)
    queries = make(seed=1, dim=32).vectors[:100].astype(np.float32)
    effort = Effort(index.parameters["ef"], index.parameters["refine_factor"])
    _, reached = index.search_with(queries, ROWS, effort)

    def scanned(_: Segment) -> None:
        raise AssertionError("every row was scanned")

    monkeypatch.setattr(Segment, "scan", property(scanned))
    hits = []
    for query, gone in zip(queries, reached, strict=True):
        living = np.ones(ROWS, np.bool_)
        living[gone[gone >= 0]] = False
        scores, _ = index.search(query[None], 10, ef=effort.ef, among=RowSelection.of(living))
        hits.append(scores >= scan(query[None], segment.vectors, "l2", 10, ~living)[0][:, 9:] - 1e-3)
    assert np.mean(hits) >= 0.95


@KINDS
@pytest.mark.parametrize("share", [0.5, 0.1, 0.01])
def test_a_selection_keeps_the_recall(
    kind: str,
    share: float,
    make: Callable[..., Segment],
    build: Callable[..., BuiltIndex],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(searching, "EXACT_ROWS", 0)
    segment = make(dim=32)
    built = build(kind, "inner_product", dim=32)
    queries = make(seed=1, dim=32).vectors[:300].astype(np.float32)
    mask = np.random.default_rng(5).random(ROWS) < share
    index = _opened(built, segment, "inner_product")
    scores, _ = index.search(queries, 10, among=RowSelection.of(mask))
    exact = scan(queries, segment.vectors, "inner_product", 10, ~mask)[0][:, 9:10]
    assert (scores >= exact - 1e-3).mean() >= 0.94


def test_more_results_than_rows_are_padded(make: Callable[..., Segment], tmp_path: Path) -> None:
    segment = make(rows=4)
    built = build_index(segment, IndexSpecification(kind="ivf"), "l2", directory=tmp_path)
    assert built.document.kind == "flat"  # too few to train anything
    scores, rows = _opened(built, segment, "l2").search(np.zeros((2, DIM), np.float32), 9)
    assert (np.sort(rows, axis=1) == [[-1] * 5 + [0, 1, 2, 3]] * 2).all()
    assert np.isneginf(scores[rows < 0]).all()


@pytest.mark.parametrize("rows", [0, 1])
def test_a_space_of_none_or_one_can_be_indexed(
    rows: int, make: Callable[..., Segment], tmp_path: Path
) -> None:
    segment = make(rows=rows)
    built = build_index(segment, IndexSpecification(), "inner_product", directory=tmp_path)
    assert built.document.recall_at_10 is None
    index = _opened(built, segment, "inner_product")
    assert isinstance(index, FlatIndex)
    _, found = index.search(np.ones((1, DIM), np.float32), 2)
    assert (found >= 0).sum() == rows


@pytest.mark.parametrize("hard", [False, True])
def test_auto_measures_before_it_chooses(
    hard: bool, make: Callable[..., Segment], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Clustered vectors suit inverted lists; vectors without structure need the graph."""
    monkeypatch.setattr(building, "EXACT_BELOW_ROWS", 1000)
    segment = make(dim=16)
    if hard:
        objects = LocalObjectStore(tmp_path / "objects")
        noise = np.random.default_rng(3).normal(size=(4000, 64))
        info = write_segment(objects, keys=np.arange(4000), vectors=noise, dtype="float16", key_type="int64")
        segment = open_segment(objects, info.digest, tmp_path)
    directory = tmp_path / "built"
    built = build_index(segment, IndexSpecification(recall_target=0.9), "l2", directory=directory)
    assert built.document.kind == ("hnsw" if hard else "ivf")
    assert list(directory.iterdir()) == list(built.paths)


def test_an_unreachable_target_records_what_was_reached(
    make: Callable[..., Segment], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bedplate_store.indexes.tuning._ladder", lambda least, most: [1])
    segment = make()
    built = build_index(segment, IndexSpecification(kind="ivf", recall_target=1), "l2", directory=tmp_path)
    assert built.document.recall_at_10 is not None
    assert 0 < built.document.recall_at_10 < 1
