"""Searches by attribute: over snapshot and writes, with the recall of the index whatever share passes."""

from typing import Any

import numpy as np
import pytest
from tests.integration.places import FILES

from bedplate.errors import Conflict, InvalidRequest
from bedplate.wire.filters import Filter
from bedplate.wire.store import IndexSpecification
from bedplate_store import compaction, spaces
from bedplate_store.indexes import searching
from bedplate_store.scoring import scan

from .conftest import DIM, NOW

YEAR = Filter(attribute="year", at_least=2000)


def _rows(count: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((count, DIM)).astype(np.float32)


def _found(reader: Any, filter: Filter, k: int = 10) -> list[int]:
    keys = reader.search(np.ones(DIM, np.float32)[None], k, filter=filter).keys
    return sorted(key for key in np.asarray(keys).ravel().tolist() if key != -1)


def test_writes_and_snapshots_are_filtered_alike_and_compaction_keeps_attributes(store: Any) -> None:
    key = store.space()
    years = [1990, 2000, None, 2010]
    store.upsert(key, [1, 2, 3, 4], _rows(4), attributes={"year": years, "genres": [["a"], ["b"], ["a"], []]})
    readers = store.readers(refresh_seconds=0)
    assert _found(readers.get(*key), YEAR) == [2, 4]
    assert _found(readers.get(*key), Filter(attribute="genres", equals="a")) == [1, 3]
    snapshot = compaction.compact(
        store.database,
        store.objects,
        store.cache_dir,
        **key._asdict(),
        specification=IndexSpecification(),
        job=None,
        now=NOW,
    )
    reader = readers.get(*key)
    assert reader.snapshot == snapshot.snapshot
    assert _found(reader, YEAR) == [2, 4]
    # Newer writes: one row passes no more, one newly does, one is deleted, one has no attributes at all.
    store.upsert(key, [2, 1], _rows(2), attributes={"year": [1980, 2020]})
    store.delete(key, [4])
    store.upsert(key, [5], _rows(1))
    reader = readers.get(*key)
    assert _found(reader, YEAR) == [1]
    assert reader.search_by_key([3], 5, filter=YEAR).keys.tolist() == [[1, -1, -1, -1, -1]]
    assert _found(reader, Filter.model_validate({"not": {"attribute": "year", "at_least": 2000}})) == [2]
    with pytest.raises(InvalidRequest, match="it has: genres \\(list<string>\\), year \\(int64\\)"):
        _found(reader, Filter(attribute="yaer", equals=1))
    with store.database.read() as session:
        assert spaces.get_space(session, *key).attributes == {"genres": "list<string>", "year": "int64"}


def test_an_attribute_keeps_its_type_and_a_refused_write_leaves_nothing(store: Any) -> None:
    key = store.space()
    first = store.upsert(key, [1], _rows(1), attributes={"year": [1990]})
    with pytest.raises(Conflict, match="'year' is int64 in this space"):
        store.upsert(key, [2], _rows(1), attributes={"year": ["1990"], "kind": ["x"]})
    with pytest.raises(InvalidRequest, match="send one each"):
        store.upsert(key, [2], _rows(1), attributes={"kind": ["x", "y"]})
    with store.database.read() as session:
        space = spaces.get_space(session, *key)
    assert space.attributes == {"year": "int64"}
    assert store.readers().get(*key).sequence == first.sequence


@pytest.mark.parametrize("engines", [FILES], indirect=True)  # nothing of the recall is theirs
@pytest.mark.parametrize("kind", ["flat", "ivf", "hnsw"])
def test_the_recall_is_kept_whatever_share_passes(
    store: Any, kind: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(searching, "EXACT_ROWS", 200)  # else every share of so few rows is scanned
    random, rows, dim = np.random.default_rng(1), 20_000, 16
    key = store.space(dim=dim, dtype="float32")
    centres = random.standard_normal((100, dim))
    vectors = centres[random.integers(0, 100, rows)] + 0.5 * random.standard_normal((rows, dim))
    draw = random.random(rows)
    store.upsert(key, np.arange(rows), vectors, attributes={"draw": draw})
    compaction.compact(
        store.database,
        store.objects,
        store.cache_dir,
        **key._asdict(),
        specification=IndexSpecification(kind=kind, recall_target=0.95),
        job=None,
        now=NOW,
    )
    reader = store.readers().get(*key)
    assert reader.index.kind == kind
    queries = (centres[random.integers(0, 100, 1000)] + 0.5 * random.standard_normal((1000, dim))).astype(
        np.float32
    )
    for share in (0.5, 0.1, 0.01, 0.0001):
        result = reader.search(queries, 10, filter=Filter(attribute="draw", at_most=share))
        exact, _ = scan(queries, reader.base.vectors, "inner_product", 10, draw > share)
        hits = (result.scores >= exact[:, -1:] - 1e-4) & (result.keys >= 0)
        # A hundredth for the queries drawn: the effort was tuned on others.
        assert hits.sum() >= 0.94 * np.isfinite(exact).sum(), share
        assert (draw[result.keys[result.keys >= 0]] <= share).all()
