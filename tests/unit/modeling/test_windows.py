"""How events become windows, pages and batches; the promises that keep labels from leaking."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from bedplate_modeling.foundation import FoundationModel
from bedplate_modeling.windows import (
    TARGETS_PER_QUERY,
    BatchMaker,
    EncodedEvents,
    batches,
    cut_windows,
    random_page_starts,
)

from .conftest import World


@given(st.lists(st.integers(1, 60), min_size=1, max_size=8), st.integers(2, 20), st.integers(0, 99))
def test_every_event_is_a_candidate_exactly_once(lengths: list[int], window: int, seed: int) -> None:
    starts = np.concatenate([[0], np.cumsum(lengths)])
    random = np.random.default_rng(seed)
    windows = cut_windows(starts, window, random)
    labelled = np.concatenate(
        [np.arange(a, b) for a, b in zip(windows.label_starts, windows.stops, strict=True)]
    )
    assert sorted(labelled.tolist()) == list(range(sum(lengths)))
    assert (windows.stops - windows.starts).max() <= window
    user_of = np.repeat(np.arange(len(lengths)), lengths)
    assert (user_of[windows.starts] == user_of[windows.stops - 1]).all()
    assert sum(len(batch) for batch in batches(windows, 64, random)) == len(windows)


@given(st.integers(1, 5), st.integers(1, 40), st.integers(1, 9), st.integers(0, 99))
def test_pages_are_consecutive_and_not_longer_than_asked(
    rows: int, places: int, page_size: int, seed: int
) -> None:
    starts = random_page_starts((rows, places), page_size, np.random.default_rng(seed))
    slots = np.arange(places)
    assert (starts <= slots).all()
    assert (slots - starts < page_size).all()
    assert (np.diff(starts, axis=1) >= 0).all()
    assert (starts[:, 0] == 0).all()
    moved = np.diff(starts, axis=1) > 0
    assert (starts[:, 1:][moved] == np.broadcast_to(slots[1:], (rows, places - 1))[moved]).all()


def test_page_sizes_take_every_value() -> None:
    starts = random_page_starts((200, 60), 4, np.random.default_rng(0))
    sizes = [int(size) for row in starts for size in np.diff(np.unique(row))]
    assert set(sizes) == {1, 2, 3, 4}
    assert abs(np.mean(sizes) - 2.5) < 0.1


@settings(max_examples=5, deadline=None)
@given(st.integers(0, 99))
def test_candidates_see_only_strictly_earlier_events(
    world: World, trained: FoundationModel, seed: int
) -> None:
    encoded = EncodedEvents.encode(world.events, trained.vocabulary)
    random = np.random.default_rng(seed)
    maker = BatchMaker(encoded, trained, random)
    windows = cut_windows(encoded.user_starts, 32, random)
    for group in batches(windows, 512, random)[:5]:
        batch = maker.make(group)
        visible = batch.candidates.visible_BM.numpy()
        asked_at = batch.candidates.times_BM.numpy()
        times = batch.history.times_BN.numpy()
        slots = np.arange(times.shape[1])
        seen = slots[None, None] < visible[..., None]
        assert (~seen | (times[:, None] < asked_at[..., None])).all()
        rows = group.label_starts[:, None] + np.arange(visible.shape[1])
        own = np.minimum(rows, group.stops[:, None] - 1)
        assert (asked_at <= encoded.times[own]).all()
        assert (visible <= own - group.starts[:, None]).all()


def test_query_targets_are_the_next_liked_items(world: World, trained: FoundationModel) -> None:
    encoded = EncodedEvents.encode(world.events, trained.vocabulary)
    maker = BatchMaker(encoded, trained, np.random.default_rng(0))
    for row, stop in ((0, 60), (7, 60), (59, 60), (61, 100)):
        liked = [encoded.items[later] for later in range(row, stop) if encoded.labels[later] == 1]
        found = maker._liked_next(np.array([[row]]), np.array([stop]))[0, 0].tolist()
        assert found == (liked + [0] * TARGETS_PER_QUERY)[:TARGETS_PER_QUERY]
