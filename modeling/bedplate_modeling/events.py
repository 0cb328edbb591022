"""Columnar inputs: the events of many users, the catalogue of items, and one user's history as of a time.

Legend: E events of all users, L events of one user's history, I items.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bedplate.errors import InvalidRequest


class EventsInvalid(InvalidRequest):
    """Columns of unequal length, out of order, or with values that cannot be used."""

    code = "events_invalid"
    title = "The events are invalid"


@dataclass(frozen=True)
class Categories:
    """A column of strings, stored as codes into distinct keys.

    Attributes:
        keys: distinct strings, in order of first appearance.
        codes: int32 [E], indices into ``keys``.
    """

    keys: tuple[str, ...]
    codes: NDArray[np.int32]

    @classmethod
    def encode(cls, values: Iterable[Any]) -> Categories:
        """Encodes strings (other values by ``str``)."""
        index: dict[str, int] = {}
        codes = [index.setdefault(value, len(index)) for value in map(str, _plain(values))]
        return cls(tuple(index), np.asarray(codes, dtype=np.int32))

    def __len__(self) -> int:
        return len(self.codes)

    def take(self, rows: NDArray[Any]) -> Categories:
        """The rows selected by a boolean mask or by indices; the keys stay."""
        return Categories(self.keys, self.codes[rows])

    def decode(self) -> NDArray[np.object_]:
        """object [E] of ``str``."""
        return np.asarray((*self.keys, ""), dtype=object)[self.codes]

    def recode(self, index: Mapping[str, int], unknown: int = 0) -> NDArray[np.int64]:
        """int64 [E]: the codes of another vocabulary, ``unknown`` where it lacks the key."""
        lookup = np.fromiter((index.get(key, unknown) for key in self.keys), np.int64, len(self.keys))
        return lookup[self.codes] if len(self.keys) else np.zeros(0, np.int64)


def _plain(values: Iterable[Any]) -> Iterable[Any]:
    return values.tolist() if isinstance(values, np.ndarray) else values


@dataclass(frozen=True)
class Events:
    """Events of all users, sorted by (user, event time); ties keep the order in which they came in.

    Build it with ``from_columns``, which sorts. The constructor checks and raises EventsInvalid.

    Attributes:
        user, item, action, surface: one key per event, E long.
        event_time_ms: int64, milliseconds since the epoch.
        label: float32, 0 or 1, NaN where the event has no label.
    """

    user: Categories
    item: Categories
    action: Categories
    surface: Categories
    event_time_ms: NDArray[np.int64]
    label: NDArray[np.float32]
    user_starts: NDArray[np.int64] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        size = len(self.event_time_ms)
        for name in ("user", "item", "action", "surface", "label"):
            if len(getattr(self, name)) != size:
                raise EventsInvalid(
                    f"column {name} has {len(getattr(self, name))} rows, event_time_ms {size}"
                )
        labels = self.label[~np.isnan(self.label)]
        if not np.isin(labels, (0.0, 1.0)).all():
            raise EventsInvalid("labels must be 0, 1 or NaN (no label)")
        changes = np.flatnonzero(np.diff(self.user.codes)) + 1
        starts = np.concatenate([[0], changes]).astype(np.int64) if size else np.zeros(0, np.int64)
        if len(np.unique(self.user.codes[starts])) != len(starts):
            raise EventsInvalid("events are not grouped by user; build them with Events.from_columns")
        late = np.diff(self.event_time_ms) < 0
        late[changes - 1] = False
        if late.any():
            raise EventsInvalid("events of a user are not in time order; build them with Events.from_columns")
        object.__setattr__(self, "user_starts", np.append(starts, size).astype(np.int64))

    @classmethod
    def from_columns(
        cls,
        user: Iterable[Any],
        item: Iterable[Any],
        action: Iterable[Any],
        surface: Iterable[Any],
        event_time_ms: ArrayLike,
        label: ArrayLike | None = None,
    ) -> Events:
        """Encodes and sorts columns of equal length; rows with equal (user, time) keep their order.

        Raises EventsInvalid for unequal lengths and for labels other than 0, 1, NaN.
        """
        time_E = np.asarray(event_time_ms, dtype=np.int64)
        label_E = np.full(len(time_E), np.nan) if label is None else np.asarray(label)
        columns = [Categories.encode(column) for column in (user, item, action, surface)]
        if {len(column) for column in columns} | {len(label_E)} != {len(time_E)}:
            raise EventsInvalid(
                "the columns user, item, action, surface, event_time_ms, label differ in length"
            )
        order = np.lexsort((time_E, columns[0].codes))
        users, items, actions, surfaces = (column.take(order) for column in columns)
        return cls(users, items, actions, surfaces, time_E[order], label_E.astype(np.float32)[order])

    def __len__(self) -> int:
        return len(self.event_time_ms)

    def take(self, rows: NDArray[Any]) -> Events:
        """The events selected by a boolean mask or by ascending indices."""
        users, items, actions, surfaces = (
            column.take(rows) for column in (self.user, self.item, self.action, self.surface)
        )
        return Events(users, items, actions, surfaces, self.event_time_ms[rows], self.label[rows])

    def before(self, time_ms: int) -> Events:
        """The events with event_time_ms < time_ms."""
        return self.take(self.event_time_ms < time_ms)

    def history(self, user: str, before_ms: int | None = None, limit: int | None = None) -> History:
        """The last ``limit`` events of one user strictly before a time, oldest first; empty if unknown."""
        start, stop = self._rows_of(user)
        if before_ms is not None:
            stop = start + int(np.searchsorted(self.event_time_ms[start:stop], before_ms, side="left"))
        if limit is not None:
            start = max(start, stop - limit)
        rows = np.arange(start, stop)
        return History(
            items=tuple(self.item.take(rows).decode()),
            actions=tuple(self.action.take(rows).decode()),
            surfaces=tuple(self.surface.take(rows).decode()),
            event_time_ms=self.event_time_ms[rows],
        )

    def _rows_of(self, user: str) -> tuple[int, int]:
        index = self.__dict__.get("_user_index")
        if index is None:
            users = self.user.take(self.user_starts[:-1]).decode()
            index = {key: position for position, key in enumerate(users)}
            object.__setattr__(self, "_user_index", index)
        position = index.get(user)
        if position is None:
            return 0, 0
        return int(self.user_starts[position]), int(self.user_starts[position + 1])


@dataclass(frozen=True)
class Catalogue:
    """Items and their categorical features.

    Attributes:
        items: I distinct keys.
        features: feature name -> I lists of values (several values allowed, none too).
    """

    items: tuple[str, ...]
    features: Mapping[str, Sequence[Sequence[str]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if len(set(self.items)) != len(self.items):
            raise EventsInvalid("the catalogue names an item twice")
        for name, values in self.features.items():
            if len(values) != len(self.items):
                raise EventsInvalid(f"feature {name} has {len(values)} rows for {len(self.items)} items")

    @classmethod
    def from_items(cls, features_by_item: Mapping[str, Mapping[str, Any]]) -> Catalogue:
        """From item -> {feature: value or list of values}; a feature an item lacks is empty for it."""
        names = sorted({name for features in features_by_item.values() for name in features})
        columns = {
            name: [feature_values(features.get(name)) for features in features_by_item.values()]
            for name in names
        }
        return cls(tuple(features_by_item), columns)


def feature_values(value: Any) -> tuple[str, ...]:
    """One feature's values as strings: None is no value, a list, tuple, set or array several."""
    if value is None:
        return ()
    if isinstance(value, list | tuple | set | frozenset | np.ndarray):
        return tuple(str(part) for part in value)
    return (str(value),)


@dataclass(frozen=True)
class History:
    """One user's events as of a time, oldest first.

    Attributes:
        items, actions, surfaces: L keys each.
        event_time_ms: int64 [L], not descending.
    """

    items: Sequence[str]
    actions: Sequence[str]
    surfaces: Sequence[str]
    event_time_ms: NDArray[np.int64]

    def __post_init__(self) -> None:
        lengths = {len(self.items), len(self.actions), len(self.surfaces), len(self.event_time_ms)}
        if len(lengths) != 1:
            raise EventsInvalid("the columns of a history differ in length")
        if len(self.items) and (np.diff(self.event_time_ms) < 0).any():
            raise EventsInvalid("a history must be in time order, oldest first")

    @classmethod
    def empty(cls) -> History:
        return cls((), (), (), np.zeros(0, np.int64))

    def __len__(self) -> int:
        return len(self.items)

    def before(self, time_ms: int) -> History:
        """The events strictly before a time."""
        return self._slice(0, int(np.searchsorted(self.event_time_ms, time_ms, side="left")))

    def last(self, limit: int) -> History:
        """The most recent ``limit`` events."""
        return self._slice(max(0, len(self) - limit), len(self))

    def _slice(self, start: int, stop: int) -> History:
        return History(
            self.items[start:stop],
            self.actions[start:stop],
            self.surfaces[start:stop],
            self.event_time_ms[start:stop],
        )
