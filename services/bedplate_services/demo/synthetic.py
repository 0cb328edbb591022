"""A small world with a known optimum: surfaces share the users' tastes, so a foundation can help.

Items belong to groups, which are spread over all surfaces; a user likes or dislikes each group. A label is a
coin that shows 1 with probability sigmoid(+-TASTE). The NE of that coin is the best any model can reach; one
must learn from the history which groups the user likes, and a surface alone shows a third of it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from bedplate_modeling.metrics import normalized_entropy
from bedplate_services.demo.worlds import World

SURFACES = ("feed", "groups", "reels")
TERMS = "Synthetic events, made here from a seed; no terms apply."
_FIRST_SECOND = 1_700_000_000
GROUPS = 4
TASTE = 2.0


def make(*, users: int = 800, items: int = 120, events_per_user: int = 60, seed: int = 0) -> World:
    """``users * events_per_user`` events over three surfaces; the same seed gives the same world."""
    random = np.random.default_rng(seed)
    taste_UG = random.choice([-TASTE, TASTE], size=(users, GROUPS))
    surface_I = np.arange(items) % len(SURFACES)
    group_I = np.arange(items) // len(SURFACES) % GROUPS
    user_E, item_E, second_E = _visits(random, users, items, events_per_user)
    probability_E = 1 / (1 + np.exp(-taste_UG[user_E, group_I[item_E]]))
    label_E = (random.random(len(user_E)) < probability_E).astype(np.float32)
    names = np.asarray(SURFACES)[surface_I[item_E]]
    events = pa.table(
        {
            "user": pa.array([f"u{user}" for user in user_E.tolist()]),
            "item": pa.array([f"i{item}" for item in item_E.tolist()]),
            "action": pa.array(np.where(label_E == 1, "like", "skip").tolist()),
            "surface": pa.array(names.tolist()),
            "event_time": pa.array(second_E * 1_000_000, pa.timestamp("us", "UTC")),
            "label": pa.array(label_E, pa.float32()),
        }
    )
    features: dict[str, dict[str, Any]] = {
        f"i{item}": {"kind": SURFACES[surface_I[item]]} for item in range(items)
    }
    bayes = {
        surface: normalized_entropy(label_E[names == surface], probability_E[names == surface])
        for surface in SURFACES
    }
    return World("synthetic", events, features, bayes)


def _visits(
    random: np.random.Generator, users: int, items: int, events_per_user: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Users arrive over time and come in sessions; nobody sees an item twice."""
    user = np.repeat(np.arange(users), events_per_user)
    item = np.concatenate([random.permutation(items)[:events_per_user] for _ in range(users)])
    arrival = np.sort(random.integers(0, 80 * 86_400, users))
    session = np.tile(np.arange(events_per_user) // 12, users) * 4 * 86_400
    within = np.tile(np.arange(events_per_user) % 12, users) * 20
    second = _FIRST_SECOND + arrival[user] + session + within
    order = np.lexsort((np.arange(len(user)), second))
    return user[order], item[order], second[order]
