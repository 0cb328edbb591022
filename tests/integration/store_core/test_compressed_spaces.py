"""Spaces of int8 and int4: whatever happens to a row, what is answered for it never moves by a bit."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bedplate.errors import AlreadyExists, NonFiniteVectors
from bedplate.stored_vectors import Storage
from bedplate.wire.registry import SpaceSignature
from bedplate.wire.store import IndexSpecification
from bedplate_store import compaction, spaces
from bedplate_store.space_scans import SpaceScan
from bedplate_store.spaces import SpaceKey

DIM = 35
NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
KEYS = st.lists(st.integers(0, 11), min_size=1, max_size=6)
STEPS = st.lists(
    st.tuples(st.sampled_from(["upsert", "delete", "embed", "compact"]), KEYS), min_size=1, max_size=8
)


def compact(store: Any, space: SpaceKey) -> None:
    compaction.compact(
        store.database,
        store.objects,
        store.cache_dir,
        **space._asdict(),
        specification=IndexSpecification(),
        job=None,
        now=NOW,
    )


@given(steps=STEPS, dtype=st.sampled_from(["int8", "int4"]), seed=st.integers(0, 99))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=40)
def test_answers_are_those_of_the_first_write(
    steps: list[tuple[str, list[int]]], dtype: Any, seed: int, store: Any
) -> None:
    random = np.random.default_rng(seed)
    space = store.space(dim=DIM, dtype=dtype)
    storage, model = Storage(dtype, DIM), {}
    readers = store.readers(refresh_seconds=0)
    started = False
    for action, keys in steps:
        keys = list(dict.fromkeys(keys))
        # Rows of very different lengths, all of which the space can hold.
        scales = np.exp(3 * random.standard_normal((len(keys), 1)).clip(-3, 3))
        vectors = random.standard_normal((len(keys), DIM)) * scales
        vectors = vectors.astype(np.float32)
        answered = storage.decode(storage.encode(vectors), "float32")
        if action == "upsert":
            store.upsert(space, keys, vectors)
            model.update(zip(keys, answered, strict=True))
        elif action == "delete":
            store.delete(space, keys)
            model = {key: value for key, value in model.items() if key not in keys}
        elif action == "embed":
            with store.database.read() as session:
                from_here = compaction.current_sequence(session, *space)
            partition = store.partition(space, keys, vectors)
            store.publish(store.prepare(space, partition, covers_sequence=from_here))
            model.update(zip(keys, answered, strict=True))
        elif started:
            compact(store, space)
        started = started or action != "compact"
        if started:
            for reader in (readers.get(*space), store.readers().get(*space)):
                check(reader, model, random.standard_normal(DIM).astype(np.float32))


def check(reader: Any, model: dict[int, Any], query: Any) -> None:
    result = reader.lookup(list(range(13)), "float32")
    assert result.found.tolist() == [key in model for key in range(13)]
    expected = np.array([model.get(key, np.zeros(DIM, np.float32)) for key in range(13)])
    assert (result.vectors == expected).all()
    halves = reader.lookup(list(range(13)))
    assert halves.vectors.dtype == np.float16
    assert (halves.vectors == expected.astype(np.float16)).all()
    found = reader.search([query], 13)
    hits = {int(key): score for key, score in zip(found.keys[0], found.scores[0], strict=True) if key >= 0}
    assert hits.keys() == model.keys()
    for key, score in hits.items():
        assert score == pytest.approx(float(model[key] @ query), rel=1e-3, abs=1e-3)
    scan = SpaceScan.of(reader)
    assert len(scan.order) == len(model)


@pytest.mark.parametrize("dtype", ["int8", "int4"])
def test_a_key_finds_its_neighbours(store: Any, dtype: str) -> None:
    random = np.random.default_rng(0)
    vectors = random.standard_normal((60, DIM))
    vectors[1] = vectors[0] + 0.01
    space = store.space(dim=DIM, dtype=dtype, metric="l2")
    store.publish(store.prepare(space, store.partition(space, np.arange(60), vectors)))
    store.upsert(space, [61], [vectors[0] + 0.02])
    found = store.readers().get(*space).search_by_key([0, 999], 3)
    assert found.found.tolist() == [True, False]
    assert set(found.keys[0][:2].tolist()) == {1, 61}
    assert (found.keys[1] == -1).all()


@pytest.mark.parametrize("dtype", ["int8", "int4"])
def test_numbers_that_do_not_fit_are_refused_and_nothing_is_written(store: Any, dtype: str) -> None:
    space = store.space(dim=2, dtype=dtype)
    for bad in (np.nan, np.inf, 65_504.0):
        with pytest.raises(NonFiniteVectors):
            store.upsert(space, [1, 2], [[1, 2], [3, bad]])
    with store.database.read() as session:
        assert compaction.current_sequence(session, *space) == 0
    store.upsert(space, [1], [[65_000.0, -65_000.0]])
    assert np.isfinite(store.readers().get(*space).lookup([1]).vectors).all()


def test_a_space_keeps_its_storage(store: Any) -> None:
    space = store.space(dtype="int8")
    with store.database.write() as session, pytest.raises(AlreadyExists, match="int8"):
        spaces.ensure_space(
            session,
            **space._asdict(),
            signature=SpaceSignature(dim=4, key_type="int64", dtype="int4"),
            team="foundation-team",
            now=NOW,
        )
