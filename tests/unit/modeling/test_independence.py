"""What a candidate's embedding may depend on, and what it must not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bedplate_modeling.config import Variant
from bedplate_modeling.events import History
from bedplate_modeling.requests import TaeRequest, UserRequest
from bedplate_modeling.runtime import FoundationRuntime

from .conftest import HistoryMaker, RandomModel

VARIANTS: tuple[Variant, ...] = ("research", "production")
AT_MS = 2_000_000_000_000


@pytest.fixture(scope="module", params=VARIANTS)
def runtime(request: pytest.FixtureRequest, random_model: RandomModel) -> FoundationRuntime:
    return FoundationRuntime(random_model(request.param))


@pytest.fixture(scope="module", params=VARIANTS)
def exact(request: pytest.FixtureRequest, random_model: RandomModel) -> FoundationRuntime:
    """In float64, where a true dependence (however small) cannot hide behind rounding, nor rounding look
    like one."""
    runtime = FoundationRuntime(random_model(request.param))
    runtime.model.double()
    return runtime


@settings(max_examples=25, deadline=None)
@given(
    sizes=st.lists(st.tuples(st.integers(0, 30), st.integers(1, 7)), min_size=1, max_size=6),
    seed=st.integers(0, 1000),
)
def test_other_candidates_and_requests_change_nothing(
    exact: FoundationRuntime, make_history: HistoryMaker, sizes: list[tuple[int, int]], seed: int
) -> None:
    random = np.random.default_rng(seed)
    requests = [
        TaeRequest(
            "u", "feed", AT_MS, [f"item-{i}" for i in random.integers(0, 32, count)], make_history(size, seed)
        )
        for size, count in sizes
    ]
    together = exact.tae(requests)
    for request, result in zip(requests, together, strict=True):
        place = int(random.integers(0, len(request.candidates)))
        alone = exact.tae([replace(request, candidates=[request.candidates[place]])])[0]
        np.testing.assert_allclose(alone.tae_MD[0], result.tae_MD[place], atol=1e-10, rtol=0)
        np.testing.assert_allclose(alone.prediction_M[0], result.prediction_M[place], atol=1e-10, rtol=0)


def test_requests_that_share_a_history_are_answered_as_if_alone(
    exact: FoundationRuntime, make_history: HistoryMaker
) -> None:
    history, other = make_history(20, 1), make_history(9, 2)
    later = AT_MS + 60_000
    features = {"unknown": {"colour": "red"}}
    requests = [
        TaeRequest("u", "feed", AT_MS, ["item-1", "item-2", "unknown"], history, features),
        TaeRequest("v", "feed", AT_MS, ["item-5"], other),
        TaeRequest("u", "reels", AT_MS, ["item-2", "unknown"], history),
        TaeRequest("u", "reels", later, ["item-2"], history),
    ]
    for request, result in zip(requests, exact.tae(requests), strict=True):
        alone = exact.tae([request])[0]
        np.testing.assert_allclose(result.tae_MD, alone.tae_MD, atol=1e-10, rtol=0)
        np.testing.assert_allclose(result.prediction_M, alone.prediction_M, atol=1e-10, rtol=0)


def _changed(history: History, place: int) -> History:
    items, actions, surfaces = list(history.items), list(history.actions), list(history.surfaces)
    items[place], actions[place], surfaces[place] = (
        "item-29",
        "skip" if actions[place] == "like" else "like",
        "reels",
    )
    return History(items, actions, surfaces, history.event_time_ms)


def test_events_at_or_after_the_request_are_never_seen(
    runtime: FoundationRuntime, make_history: HistoryMaker
) -> None:
    history = make_history(20, seed=9)
    at_ms = int(history.event_time_ms[12])
    first = int(np.searchsorted(history.event_time_ms, at_ms))
    request = TaeRequest("u", "feed", at_ms, ["item-1", "item-2"], history)
    before = runtime.tae([request])[0].tae_MD
    for place in range(first, 20):
        after = runtime.tae([replace(request, history=_changed(history, place))])[0].tae_MD
        assert np.array_equal(before, after)
    seen = runtime.tae([replace(request, history=_changed(history, first - 1))])[0].tae_MD
    assert np.abs(before - seen).max() > 1e-4
    user = UserRequest("u", at_ms, history)
    changed = UserRequest("u", at_ms, _changed(history, first))
    assert np.array_equal(runtime.embed_users([user]), runtime.embed_users([changed]))


def test_a_cache_never_shows_events_at_or_after_the_request(
    runtime: FoundationRuntime, make_history: HistoryMaker
) -> None:
    history = make_history(20, seed=9)
    at_ms = int(history.event_time_ms[12])
    request = TaeRequest("u", "feed", at_ms, ["item-1"], history)
    whole = runtime.score([runtime.prefill(history)], [request])[0]
    np.testing.assert_allclose(whole.tae_MD, runtime.tae([request])[0].tae_MD, atol=1e-5, rtol=0)


def test_every_event_before_the_request_counts_within_the_window(
    runtime: FoundationRuntime, make_history: HistoryMaker
) -> None:
    history = make_history(30, seed=2)
    request = TaeRequest("u", "feed", AT_MS, ["item-1"], history)
    before = runtime.tae([request])[0].tae_MD
    oldest_seen = 30 - runtime.max_history
    for place in (oldest_seen, 20, 29):
        assert (
            np.abs(before - runtime.tae([replace(request, history=_changed(history, place))])[0].tae_MD).max()
            > 1e-5
        )
    unseen = runtime.tae([replace(request, history=_changed(history, oldest_seen - 1))])[0].tae_MD
    assert np.array_equal(before, unseen)


def test_equal_batches_give_equal_bytes(runtime: FoundationRuntime, make_history: HistoryMaker) -> None:
    requests = [TaeRequest("u", "feed", AT_MS, ["item-1", "x"], make_history(n, n)) for n in (3, 20, 0)]
    for one, other in zip(runtime.tae(requests), runtime.tae(requests), strict=True):
        assert one.tae_MD.tobytes() == other.tae_MD.tobytes()


def test_features_of_unknown_items_belong_to_their_request(runtime: FoundationRuntime) -> None:
    """Two requests may describe a new item differently; an item the model knows ignores what is given."""
    plain = TaeRequest("u", "feed", AT_MS, ["new", "item-1"], History.empty())
    blue, red = (
        replace(plain, candidate_features={name: {"colour": colour} for name in ("new", "item-1")})
        for colour in ("blue", "red")
    )
    together = [result.tae_MD for result in runtime.tae([plain, blue, red])]
    for request, found in zip((plain, blue, red), together, strict=True):
        np.testing.assert_allclose(runtime.tae([request])[0].tae_MD, found, atol=1e-5, rtol=0)
    assert np.abs(together[1][0] - together[2][0]).max() > 1e-4
    np.testing.assert_allclose(together[1][1], together[0][1], atol=1e-5, rtol=0)
    vectors = [runtime.embed_items(["new"], {"new": {"colour": colour}}) for colour in ("blue", "red")]
    assert np.abs(vectors[0] - vectors[1]).max() > 1e-4
    assert runtime.knows(["new", "item-1"]).tolist() == [False, True]


def test_nothing_asked_nothing_answered(runtime: FoundationRuntime) -> None:
    assert runtime.tae([]) == []
    assert runtime.tae([TaeRequest("u", "feed", AT_MS, [], History.empty())])[0].tae_MD.shape == (0, 16)
    assert runtime.embed_users([]).shape == runtime.embed_items([]).shape == (0, 16)
