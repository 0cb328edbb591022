"""A small world whose best possible predictor is known, and small models with random weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from bedplate_modeling.config import FoundationConfig, Variant
from bedplate_modeling.events import Catalogue, Events, History
from bedplate_modeling.foundation import FoundationModel
from bedplate_modeling.training import train_foundation
from bedplate_modeling.vocabulary import Vocabulary

GROUPS = 4
ITEMS = 40
DAY_MS = 86_400_000


@dataclass(frozen=True)
class World:
    """Users like or dislike each of four groups of items; the label is a coin of known bias.

    Nine events in ten happen on surface "wide", the rest on "narrow"; tastes are the same on both, so
    knowledge of the first helps on the second. ``probability`` is what an oracle says of each event.
    """

    events: Events
    catalogue: Catalogue
    probability: NDArray[np.float64]

    def before(self, share: float) -> NDArray[np.bool_]:
        """Mask of the first ``share`` of the events in time."""
        return self.events.event_time_ms < np.quantile(self.events.event_time_ms, share)


def _make_world(users: int = 500, events_per_user: int = 60, seed: int = 3) -> World:
    random = np.random.default_rng(seed)
    taste = random.choice([-2.0, 2.0], size=(users, GROUPS))
    user = np.repeat(np.arange(users), events_per_user)
    item = random.integers(0, ITEMS, len(user))
    probability = 1 / (1 + np.exp(-taste[user, item % GROUPS]))
    label = (random.random(len(user)) < probability).astype(np.float32)
    start = random.integers(0, 300, users)
    minute = np.arange(events_per_user) * 7
    time_ms = start[user] * DAY_MS + np.tile(minute, users) * 60_000 + 1_000_000_000_000
    events = Events.from_columns(
        [f"user-{u}" for u in user],
        [f"item-{i}" for i in item],
        np.where(label > 0, "like", "skip"),
        np.where(random.random(len(user)) < 0.9, "wide", "narrow"),
        time_ms,
        label,
    )
    catalogue = Catalogue.from_items({f"item-{i}": {"colour": f"c{i % 7}"} for i in range(ITEMS)})
    return World(events, catalogue, probability)


@pytest.fixture(scope="session")
def world() -> World:
    return _make_world()


@pytest.fixture(scope="session")
def trained(world: World) -> FoundationModel:
    """A foundation trained on the first 70 % of the world."""
    config = FoundationConfig(
        dim=32,
        heads=1,
        layers=1,
        max_history=64,
        epochs=8,
        batch_tokens=300,
        learning_rate=5e-3,
        dropout=0.0,
        retrieval_weight=0.5,
        page_size=4,
    )
    return train_foundation(world.events.take(world.before(0.7)), world.catalogue, config, seed=1, threads=1)


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """The models here are too small to gain from threads."""
    torch.set_num_threads(1)


RandomModel = Callable[[Variant], FoundationModel]


@pytest.fixture(scope="session")
def random_model() -> RandomModel:
    """Three layers, n = 24, weights large enough for every term to count."""

    def build(variant: Variant) -> FoundationModel:
        vocabulary = Vocabulary(
            tuple(f"item-{i}" for i in range(30)),
            ("colour=blue", "colour=red", "year=1999"),
            ("like", "skip"),
            ("feed", "reels"),
        )
        config = FoundationConfig(variant=variant, dim=16, heads=2, layers=3, max_history=24)
        with torch.random.fork_rng():
            torch.manual_seed(5)
            table = torch.randint(0, 4, (31, 2))
            table[0] = 0
            model = FoundationModel(config, vocabulary, table)
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter.add_(torch.randn_like(parameter) * 0.3)
        return model.eval()

    return build


HistoryMaker = Callable[..., History]


@pytest.fixture(scope="session")
def make_history() -> HistoryMaker:
    """Histories of known items with uneven gaps and some equal times, ending before 2,000,000,000,000 ms."""

    def make(size: int, seed: int = 0) -> History:
        random = np.random.default_rng(seed)
        gaps = random.choice([0, 1_000, 60_000, 3_600_000, 400 * DAY_MS], size)
        return History(
            items=[f"item-{i}" for i in random.integers(0, 33, size)],
            actions=[str(a) for a in random.choice(["like", "skip", "unheard-of"], size)],
            surfaces=[str(s) for s in random.choice(["feed", "reels"], size)],
            event_time_ms=np.cumsum(gaps).astype(np.int64) + 1_000_000_000_000,
        )

    return make
