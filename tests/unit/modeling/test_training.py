"""Training on a world whose best predictor is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bedplate_modeling.config import FoundationConfig
from bedplate_modeling.events import Events
from bedplate_modeling.foundation import FoundationModel
from bedplate_modeling.metrics import auc, normalized_entropy
from bedplate_modeling.requests import TaeRequest, UserRequest
from bedplate_modeling.runtime import FoundationRuntime
from bedplate_modeling.training import TrainingDataInvalid, TrainingProgress, train_foundation

from .conftest import World

QUICK = FoundationConfig(dim=16, layers=1, max_history=32, epochs=1, batch_tokens=1024, page_size=4)


def later_requests(world: World, rows: np.ndarray[tuple[int], np.dtype[np.int64]]) -> list[TaeRequest]:
    """One request per event: its item, asked at its time."""
    events = world.events
    users, items, surfaces = events.user.decode(), events.item.decode(), events.surface.decode()
    return [
        TaeRequest(
            users[row],
            surfaces[row],
            at := int(events.event_time_ms[row]),
            [items[row]],
            events.history(users[row], at),
        )
        for row in rows
    ]


def experienced_rows(world: World, least: int = 30) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Events of the last 30 % whose user has at least ``least`` earlier events: tastes can be known there."""
    starts = world.events.user_starts
    place = np.arange(len(world.events)) - np.repeat(starts[:-1], np.diff(starts))
    return np.flatnonzero(~world.before(0.7) & (place >= least))


def test_the_foundation_approaches_the_best_possible_predictor(
    world: World, trained: FoundationModel
) -> None:
    rows = experienced_rows(world)
    results = FoundationRuntime(trained).tae(later_requests(world, rows))
    predicted = np.array([result.prediction_M[0] for result in results])
    label = world.events.label[rows]
    best = normalized_entropy(label, world.probability[rows])
    found = normalized_entropy(label, predicted)
    assert best < 0.6
    assert found < best + 0.04, f"best possible {best:.3f}, found {found:.3f}"


def test_user_and_item_vectors_retrieve_what_the_user_likes(world: World, trained: FoundationModel) -> None:
    """user . item must rank the items of liked groups above the others, for users never trained on."""
    runtime = FoundationRuntime(trained)
    starts, late = world.events.user_starts, ~world.before(0.7)
    users = [int(start) for start in starts[:-1] if late[start]][:80]
    assert len(users) == 80
    names = world.events.user.decode()[users]
    requests = [UserRequest(name, 1 << 45, world.events.history(name)) for name in names]
    items = [f"item-{i}" for i in range(40)]
    vectors_ID, users_UD = runtime.embed_items(items), runtime.embed_users(requests)
    np.testing.assert_allclose(np.linalg.norm(vectors_ID, axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(users_UD, axis=1), 1, atol=1e-5)
    liked, scores = [], []
    by_name = {name: place for place, name in enumerate(items)}
    for row, name in enumerate(names):
        history = world.events.history(name)
        outcome: dict[int, list[float]] = {}
        for item, action in zip(history.items, history.actions, strict=True):
            outcome.setdefault(by_name[item] % 4, []).append(float(action == "like"))
        liked.extend(float(np.mean(outcome.get(i % 4, [0])) > 0.5) for i in range(40))
        scores.extend((vectors_ID @ users_UD[row]).tolist())
    assert auc(liked, scores) > 0.6


def test_same_seed_same_model_other_seed_other_model(world: World) -> None:
    events = world.events.take(world.before(0.2))
    one, two = (train_foundation(events, world.catalogue, QUICK, seed=4, threads=1) for _ in range(2))
    for name, tensor in one.state_dict().items():
        assert torch.equal(tensor, two.state_dict()[name]), name
    other = train_foundation(events, world.catalogue, QUICK, seed=5, threads=1)
    assert not torch.equal(one.main_head.weight, other.main_head.weight)


def test_training_leaves_the_callers_random_state_and_threads_alone(world: World) -> None:
    events = world.events.take(world.before(0.05))
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    train_foundation(events, world.catalogue, QUICK, threads=1)
    assert torch.get_num_threads() == threads
    assert torch.equal(state, torch.get_rng_state())


def test_progress_reaches_the_total(world: World) -> None:
    seen: list[TrainingProgress] = []
    events = world.events.take(world.before(0.1))
    train_foundation(events, world.catalogue, QUICK, threads=1, progress=seen.append)
    assert [p.done for p in seen] == sorted(p.done for p in seen)
    assert seen[-1].done == seen[-1].total == len(events) * QUICK.epochs
    assert np.isfinite(seen[-1].loss)
    assert seen[-1].rows_per_second > 0


def test_the_research_variant_trains(world: World) -> None:
    losses: list[float] = []
    config = QUICK.with_changes(variant="research", epochs=3, batch_tokens=300, learning_rate=4e-3)
    events = world.events.take(world.before(0.3))
    train_foundation(events, world.catalogue, config, threads=1, progress=lambda p: losses.append(p.loss))
    assert losses[-1] < losses[0] - 0.02


def test_events_without_label_are_history_only(world: World) -> None:
    events = world.events.take(world.before(0.1))
    label = events.label.copy()
    label[::2] = np.nan
    half = Events(events.user, events.item, events.action, events.surface, events.event_time_ms, label)
    model = train_foundation(half, world.catalogue, QUICK)
    assert all(bool(torch.isfinite(p).all()) for p in model.parameters())


@pytest.mark.parametrize(
    ("label", "reason"),
    [
        ([], "no events"),
        ([np.nan, np.nan], "no event has a label"),
        ([1, 1], "both classes"),
        ([0, 0], "both classes"),
    ],
)
def test_data_that_cannot_train_says_why(world: World, label: list[float], reason: str) -> None:
    size = len(label)
    events = Events.from_columns(["u"] * size, ["i"] * size, ["a"] * size, ["s"] * size, range(size), label)
    with pytest.raises(TrainingDataInvalid, match=reason):
        train_foundation(events, world.catalogue, QUICK)
