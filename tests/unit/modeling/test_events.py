from __future__ import annotations

import numpy as np
import pytest

from bedplate_modeling.config import ConfigInvalid
from bedplate_modeling.events import Catalogue, Categories, Events, EventsInvalid, History
from bedplate_modeling.vocabulary import Vocabulary, feature_table


def _events() -> Events:
    return Events.from_columns(
        user=["b", "a", "b", "a", "b"],
        item=["i1", "i2", "i3", "i4", "i5"],
        action=["x", "y", "x", "y", "x"],
        surface=["s", "s", "t", "t", "s"],
        event_time_ms=[30, 20, 10, 20, 30],
        label=[1, 0, float("nan"), 1, 0],
    )


def test_columns_are_sorted_by_user_and_time_and_ties_keep_their_order() -> None:
    events = _events()
    assert events.item.decode().tolist() == ["i3", "i1", "i5", "i2", "i4"]
    assert events.user_starts.tolist() == [0, 3, 5]
    assert events.label[1:].tolist() == [1, 0, 0, 1]


def test_history_ends_strictly_before_the_time() -> None:
    events = _events()
    assert list(events.history("b", before_ms=30).items) == ["i3"]
    assert list(events.history("b", before_ms=31).items) == ["i3", "i1", "i5"]
    assert list(events.history("b", limit=2).items) == ["i1", "i5"]
    assert len(events.history("nobody")) == 0


def test_before_and_take_keep_the_keys() -> None:
    early = _events().before(30)
    assert early.item.decode().tolist() == ["i3", "i2", "i4"]
    assert early.user_starts.tolist() == [0, 1, 3]


def test_no_events() -> None:
    events = Events.from_columns([], [], [], [], [])
    assert len(events) == 0
    assert len(events.history("a")) == 0


def test_unequal_columns_and_foreign_labels_are_refused() -> None:
    with pytest.raises(EventsInvalid, match="differ in length"):
        Events.from_columns(["a"], ["i", "j"], ["x"], ["s"], [1])
    with pytest.raises(EventsInvalid, match="labels must be"):
        Events.from_columns(["a"], ["i"], ["x"], ["s"], [1], [3.5])


def test_the_constructor_refuses_disorder() -> None:
    one = Categories.encode(["a", "a"])
    with pytest.raises(EventsInvalid, match="time order"):
        Events(one, one, one, one, np.array([2, 1]), np.zeros(2, np.float32))
    users = Categories.encode(["a", "b", "a"])
    three = Categories.encode(["x", "x", "x"])
    with pytest.raises(EventsInvalid, match="grouped by user"):
        Events(users, three, three, three, np.array([1, 2, 3]), np.zeros(3, np.float32))


def test_history_refuses_disorder() -> None:
    with pytest.raises(EventsInvalid, match="time order"):
        History(["a", "b"], ["x", "x"], ["s", "s"], np.array([2, 1]))
    with pytest.raises(EventsInvalid, match="length"):
        History(["a"], ["x", "x"], ["s"], np.array([2]))


def test_catalogue_features_may_be_single_several_or_absent() -> None:
    catalogue = Catalogue.from_items({"i": {"year": 1999, "genres": ["a", "b"]}, "j": {"year": None}})
    keys, table = feature_table(("j", "i", "unlisted"), catalogue)
    assert keys == ("genres=a", "genres=b", "year=1999")
    assert table.tolist() == [[0, 0, 0], [0, 0, 0], [1, 2, 3], [0, 0, 0]]
    with pytest.raises(EventsInvalid, match="twice"):
        Catalogue(("i", "i"))


def test_vocabulary_of_unknown_features_and_json() -> None:
    vocabulary = Vocabulary(("i",), ("genres=a", "year=1999"), ("x",), ("s",))
    assert vocabulary.feature_row({"genres": ["a", "new"], "year": 1999, "other": 1}, 3) == [1, 2, 0]
    assert Vocabulary.from_json(vocabulary.to_json()) == vocabulary
    for broken in ({}, {**vocabulary.to_json(), "items": ["i", "i"]}, {**vocabulary.to_json(), "items": [1]}):
        with pytest.raises(ConfigInvalid):
            Vocabulary.from_json(broken)
