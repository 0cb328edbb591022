"""The vocabularies of a checkpoint: which index each item, feature value, action and surface has.

Index 0 is reserved everywhere for "unknown or absent".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bedplate_modeling.config import ConfigInvalid
from bedplate_modeling.events import Catalogue, feature_values


def feature_key(name: str, value: str) -> str:
    """The vocabulary's name of one feature value, e.g. ``genres=Drama``."""
    return f"{name}={value}"


@dataclass(frozen=True)
class Vocabulary:
    """Keys in index order, the first of each having index 1.

    Attributes:
        items, features, actions, surfaces: distinct keys; features are named ``name=value``.
    """

    items: tuple[str, ...]
    features: tuple[str, ...]
    actions: tuple[str, ...]
    surfaces: tuple[str, ...]

    @cached_property
    def item_index(self) -> dict[str, int]:
        return _index(self.items)

    @cached_property
    def feature_index(self) -> dict[str, int]:
        return _index(self.features)

    @cached_property
    def action_index(self) -> dict[str, int]:
        return _index(self.actions)

    @cached_property
    def surface_index(self) -> dict[str, int]:
        return _index(self.surfaces)

    def feature_row(self, features: Mapping[str, Any], width: int) -> list[int]:
        """``width`` indices of one item's known feature values, padded with 0; surplus values are dropped."""
        found = [
            self.feature_index[key]
            for name in sorted(features)
            for value in feature_values(features[name])
            if (key := feature_key(name, value)) in self.feature_index
        ]
        return (found + [0] * width)[:width]

    def to_json(self) -> dict[str, list[str]]:
        return {
            "items": list(self.items),
            "features": list(self.features),
            "actions": list(self.actions),
            "surfaces": list(self.surfaces),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Vocabulary:
        """Raises ConfigInvalid unless ``data`` holds exactly the four lists of distinct strings."""
        names = ("items", "features", "actions", "surfaces")
        if not isinstance(data, Mapping) or set(data) != set(names):
            raise ConfigInvalid(f"a vocabulary holds the lists {', '.join(names)}")
        for name in names:
            keys = data[name]
            if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
                raise ConfigInvalid(f"vocabulary {name} must be a list of strings")
            if len(set(keys)) != len(keys):
                raise ConfigInvalid(f"vocabulary {name} names a key twice")
        return cls(*(tuple(data[name]) for name in names))


def _index(keys: Sequence[str]) -> dict[str, int]:
    return {key: position for position, key in enumerate(keys, start=1)}


def feature_table(items: Sequence[str], catalogue: Catalogue) -> tuple[tuple[str, ...], NDArray[np.int64]]:
    """Feature keys, and the features of each item.

    Returns:
        keys named ``name=value`` in sorted order, and int64 [1 + len(items), F]: row 0 (unknown item) is all
        0, and unused places are 0. Items the catalogue lacks have no features.
    """
    position = {item: row for row, item in enumerate(catalogue.items)}
    rows = [
        [
            feature_key(name, value)
            for name in sorted(catalogue.features)
            for value in feature_values(catalogue.features[name][position[item]])
        ]
        if item in position
        else []
        for item in items
    ]
    keys = tuple(sorted({key for row in rows for key in row}))
    index = _index(keys)
    table = np.zeros((len(items) + 1, max((len(row) for row in rows), default=0) or 1), np.int64)
    for place, row in enumerate(rows, start=1):
        table[place, : len(row)] = [index[key] for key in row]
    return keys, table
