"""How much of the catalogue, or of the active users, a space covers."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest

from bedplate.wire.store import Event, Item
from bedplate_store import coverage as measuring
from bedplate_store import events, items
from bedplate_store.coverage import coverage
from bedplate_store.event_columns import EventColumns

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
ROWS = 200


@pytest.fixture(scope="module")
def catalogue(store: Any) -> Any:
    """A store with items 0 to 199, and events of users 0 to 9 today and of 10 to 19 long ago."""
    with store.database.write() as session:
        items.upsert(session, [Item(key=str(number)) for number in range(ROWS)], now=NOW)
    for first, age in ((10, timedelta(days=60)), (0, timedelta(days=1))):
        batch = [
            Event(user=str(user), item="1", action="like", surface="feed", event_time=NOW - age)
            for user in range(first, first + 10)
        ]
        with store.database.write() as session:
            events.ingest(session, EventColumns.from_wire(batch), now=NOW)
    return store


def measured(store: Any, key: Any) -> Any:
    reader = store.readers().get(*key)
    with store.database.read() as session:
        return coverage(session, reader, NOW, np.random.default_rng(1))


def ones(count: int) -> Any:
    return np.ones((count, 4), np.float32)


def test_written_and_deleted_rows_count_as_readers_see_them(catalogue: Any) -> None:
    key = catalogue.space()
    catalogue.embed(key, np.arange(100), ones(100))
    assert measured(catalogue, key) == ("item", 0.5)
    catalogue.upsert(key, np.arange(90, 120), ones(30))  # 20 of them are new
    assert measured(catalogue, key) == ("item", 0.6)
    catalogue.delete(key, np.arange(0, 60))
    assert measured(catalogue, key) == ("item", 0.3)


def test_vectors_of_what_the_catalogue_lacks_cover_nothing(catalogue: Any) -> None:
    key = catalogue.space()
    catalogue.embed(key, np.arange(150, 350), ones(200))
    assert measured(catalogue, key) == ("item", 0.25)


def test_of_the_users_only_the_active_ones_are_expected(catalogue: Any) -> None:
    key = catalogue.space("user", key_type="string")
    catalogue.embed(key, [str(user) for user in range(5, 20)], ones(15))
    assert measured(catalogue, key) == ("user", 0.5)


def test_a_space_of_neither_is_not_measured(catalogue: Any) -> None:
    key = catalogue.space("tae")
    catalogue.embed(key, np.arange(10), ones(10))
    assert measured(catalogue, key) is None


def test_a_large_space_is_measured_by_a_sample(catalogue: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measuring, "SAMPLE_KEYS", 100)
    key = catalogue.space()
    catalogue.embed(key, np.arange(100, 400), ones(300))
    assert measured(catalogue, key) == ("item", pytest.approx(0.5, abs=0.2))
