"""Tuning: what it promises, queries that nobody has seen find."""

from pathlib import Path

import faiss
import numpy as np
import pytest
from numpy.typing import NDArray

from bedplate.wire.registry import Metric
from bedplate.wire.store import IndexKind, IndexSpecification
from bedplate_store.indexes import build_index, building, open_index
from bedplate_store.indexes.efforts import choose, read_points
from bedplate_store.indexes.graphs import build_graph
from bedplate_store.indexes.searching import EF_MAX
from bedplate_store.indexes.tuning import hold_back
from bedplate_store.objects import LocalObjectStore
from bedplate_store.segments import Segment, open_segment, write_segment

ROWS, DIM = 6000, 64


def _vectors(count: int, seed: int) -> NDArray[np.float32]:
    centres = np.random.default_rng(99).normal(size=(40, DIM))
    random = np.random.default_rng(seed)
    around = centres[random.integers(0, 40, count)] + 0.5 * random.normal(size=(count, DIM))
    return around.astype(np.float32)


def _exact(queries: NDArray[np.float32], rows: NDArray[np.float32], metric: Metric) -> NDArray[np.float32]:
    products = queries @ rows.T
    if metric == "inner_product":
        return products
    return 2 * products - (queries**2).sum(axis=1)[:, None] - (rows**2).sum(axis=1)


@pytest.fixture(scope="module")
def segment(tmp_path_factory: pytest.TempPathFactory) -> Segment:
    folder = tmp_path_factory.mktemp("segment")
    objects, vectors = LocalObjectStore(folder / "objects"), _vectors(ROWS, 0)
    info = write_segment(objects, keys=np.arange(ROWS), vectors=vectors, dtype="float32", key_type="int64")
    return open_segment(objects, info.digest, folder / "cache")


@pytest.mark.parametrize(("kind", "shards"), [("ivf", 1), ("hnsw", 1), ("hnsw", 2)])
@pytest.mark.parametrize("metric", ["l2", "inner_product"])
def test_queries_that_nobody_has_seen_reach_what_tuning_promises(
    kind: IndexKind, metric: Metric, shards: int, segment: Segment, tmp_path: Path
) -> None:
    specification = IndexSpecification(kind=kind, shards=shards)
    built = build_index(segment, specification, metric, directory=tmp_path)
    index = open_index(built.paths, built.document, segment, metric)
    queries = _vectors(2000, 1)
    exact = _exact(queries, segment.vectors, metric)
    points = read_points(built.document.parameters)
    promised = [
        (k, target)
        for k in (10, 100)
        for target in (0.9, 0.95, 0.99)
        if choose(points, k, target, ef_max=EF_MAX).reached
    ]
    assert len(promised) >= 5  # a graph by inner products does not find 99 of 100, and says so
    for k, target in promised:
        thresholds = -np.sort(-exact, axis=1)[:, k - 1 : k]
        _, rows = index.search(queries, k, recall=target)
        found = np.take_along_axis(exact, rows, axis=1)
        assert (found >= thresholds - 1e-4).mean() >= target, (k, target)
    assert set(tmp_path.iterdir()) == set(built.paths)


@pytest.mark.parametrize("metric", ["l2", "inner_product"])
def test_what_is_held_back_is_not_among_the_neighbours(metric: Metric, segment: Segment) -> None:
    held_back = hold_back(segment, metric, seed=3)
    others = np.delete(segment.vectors, held_back.rows, axis=0)
    scores = -np.sort(-_exact(held_back.queries, others, metric), axis=1)
    for depth, thresholds in held_back.thresholds.items():
        assert np.allclose(thresholds, scores[: len(thresholds), depth - 1], rtol=1e-4, atol=1e-3)
    assert held_back.others.count == ROWS - len(held_back.rows)
    assert (held_back.queries == segment.vectors[held_back.rows]).all()


def test_a_graph_before_the_held_back_rows_has_all_others_and_no_way_to_them(
    segment: Segment, tmp_path: Path
) -> None:
    how = building.recipe("hnsw", ROWS, "float32")
    held = np.array([5, 17, 5998])
    trained, path, before = (tmp_path / name for name in ("trained", "index", "before"))
    building.train(segment, how, "l2", trained)
    build_graph(segment, trained, path, before, held, holds_vectors=True)
    whole, earlier = faiss.read_index(str(path)), faiss.read_index(str(before))
    rows = np.arange(0, ROWS, 7)
    assert (whole.search(segment.vectors[rows], 1)[1][:, 0] == rows).mean() > 0.99
    assert (whole.search(segment.vectors[held], 1)[1][:, 0] == held).all()
    found = earlier.search(segment.vectors[held], 50)[1]
    assert not np.isin(found, held).any()
    assert (found >= 0).all()
    assert (earlier.search(segment.vectors[rows], 1)[1][:, 0] == rows).mean() > 0.99
