"""The rows on which the cost of compression is measured."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from benchmarks.compression import stored
from benchmarks.impressions import Impressions

from bedplate.stored_vectors import Storage
from bedplate_modeling.config import ExpertConfig, FoundationConfig
from bedplate_modeling.events import Catalogue
from bedplate_modeling.expert_rows import ExpertRows
from bedplate_modeling.runtime import FoundationRuntime
from bedplate_modeling.training import train_foundation
from bedplate_services.demo import synthetic
from bedplate_services.demo.foundations import events_of
from bedplate_services.demo.worlds import World

DIM = 64


@pytest.fixture(scope="module")
def world() -> World:
    return synthetic.make(users=40, seed=1)


@pytest.fixture(scope="module")
def rows(world: World) -> dict[str, ExpertRows]:
    cuts = world.cuts()
    known = events_of(world.window(cuts.start, cuts.foundation_end))
    config = FoundationConfig.small(epochs=1, dim=DIM, layers=1, max_history=8)
    model = train_foundation(known, Catalogue.from_items(world.items), config, threads=1)
    impressions = Impressions(world, FoundationRuntime(model), cuts.foundation_end // 1000)
    return impressions.rows(cuts.foundation_end, cuts.end, world.surfaces)


def test_every_labelled_event_is_a_row_and_nothing_later_is_seen(
    world: World, rows: dict[str, ExpertRows]
) -> None:
    cuts = world.cuts()
    window = world.window(cuts.foundation_end, cuts.end)
    for surface, found in rows.items():
        here = window.filter(pc.equal(window["surface"], surface))
        assert sorted(found.items) == sorted(here["item"].to_pylist())
        assert found.label_N is not None
        assert found.label_N.sum() == pc.sum(here["label"]).as_py()
        found.check(ExpertConfig.on_tae(surface, "core@1", DIM))
        found.check(ExpertConfig.on_vectors(surface, "core@1", DIM))


def test_who_came_after_the_embedding_has_no_vector(world: World, rows: dict[str, ExpertRows]) -> None:
    cuts = world.cuts()
    known = set(world.window(cuts.start, cuts.foundation_end)["user"].to_pylist())
    last = world.window(cuts.foundation_end, cuts.end)
    expected = pc.is_in(last["user"], value_set=pa.array(sorted(known))).to_numpy()
    found = np.concatenate([one.user_found_N for one in rows.values()])
    assert 0 < expected.sum() < len(expected)
    assert found.sum() == expected.sum()
    for one in rows.values():
        assert one.user_vectors_ND is not None
        assert ((one.user_vectors_ND != 0).any(axis=1) == one.user_found_N).all()


@pytest.mark.parametrize(("dtype", "least", "most"), [("float16", 1e-5, 1e-3), ("int4", 0.03, 0.2)])
def test_what_is_read_is_what_a_space_of_that_dtype_answers(
    rows: dict[str, ExpertRows], dtype: str, least: float, most: float
) -> None:
    surface, exact = next(iter(rows.items()))
    storage = Storage(dtype, DIM)
    on_tae, moved = stored(exact, ExpertConfig.on_tae(surface, "core@1", DIM), dtype)
    assert least < moved < most
    assert np.array_equal(on_tae.tae_ND, storage.decode(storage.encode(exact.tae_ND)))
    assert np.array_equal(on_tae.item_vectors_ND, exact.item_vectors_ND)
    on_vectors, moved = stored(exact, ExpertConfig.on_vectors(surface, "core@1", DIM), dtype)
    assert least < moved < most
    assert np.array_equal(on_vectors.user_vectors_ND, storage.decode(storage.encode(exact.user_vectors_ND)))
    assert np.array_equal(on_vectors.tae_ND, exact.tae_ND)
    assert stored(exact, ExpertConfig.on_tae(surface, "core@1", DIM), "float32")[1] == 0
