"""What is refused before it reaches the database, and how it is said."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bedplate.errors import InvalidRequest
from bedplate.wire.store import Event
from bedplate_store.event_columns import EventColumns
from bedplate_store.key_ranges import cut_key_ranges
from bedplate_store.times import instant, microseconds


def table(**given: Any) -> pa.Table:
    columns: dict[str, Any] = {
        "user": ["u", "v"],
        "item": ["i", "j"],
        "action": ["like", "like"],
        "surface": ["feed", "reels"],
        "event_time": [1, 2],
    }
    return pa.table({name: value for name, value in {**columns, **given}.items() if value is not None})


def test_columns_are_taken_as_they_come() -> None:
    columns = EventColumns.from_arrow(
        table(
            user=pa.array(["u", "v"]).dictionary_encode(),
            item=pa.array(["i", "j"], pa.large_string()),
            event_time=pa.array([5, 6], pa.timestamp("ms", tz="Europe/Berlin")),
            label=pa.array([1, None], pa.float32()),
            features=['{"b": 1, "a": 2}', None],
        )
    )
    assert columns.user.to_pylist() == ["u", "v"]
    assert columns.event_time_us.tolist() == [5000, 6000]
    assert np.array_equal(columns.label, [1.0, np.nan], equal_nan=True)
    assert columns.features == ['{"a":2,"b":1}', None]
    assert columns.surfaces == ["feed", "reels"]
    assert EventColumns.from_arrow(table()).features is None


def test_documents_become_columns() -> None:
    time = datetime(2026, 1, 1, tzinfo=UTC)
    event = Event(
        user="u", item="i", action="like", surface="feed", event_time=time, label=0.5, features={"x": "é"}
    )
    columns = EventColumns.from_wire([event])
    assert columns.event_time_us.tolist() == [microseconds(time)]
    assert columns.features == ['{"x":"é"}']


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"user": None}, "no column 'user'"),
        ({"user": ["u", None]}, "'user' has a null in row 1"),
        ({"user": [1, 2]}, "'user' must be of type string"),
        ({"user": ["u", ""]}, "'user', row 1"),
        ({"item": ["i", "x" * 257]}, "'item', row 1"),
        ({"item": ["i\x00", "j"]}, "'item', row 0"),
        ({"action": ["like", "x" * 65]}, "'action', row 1"),
        ({"surface": ["feed", "Not A Name"]}, "surface 'Not A Name' is not allowed"),
        ({"event_time": [1.0, 2.0]}, "'event_time' must be"),
        ({"event_time": pa.array([1, 2], pa.timestamp("us"))}, "'event_time' must be"),
        ({"event_time": [1, None]}, "'event_time' has a null in row 1"),
        ({"label": ["good", "bad"]}, "'label' must be a float"),
        ({"label": [1.0, float("inf")]}, "'label', row 1"),
        ({"features": [None, "[]"]}, "'features', row 1"),
        ({"features": ["{", None]}, "'features', row 0"),
        ({"features": ['{"a": NaN}', None]}, "'features', row 0"),
    ],
)
def test_what_is_wrong_is_named(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidRequest, match=message):
        EventColumns.from_arrow(table(**wrong))


def test_a_time_without_a_zone_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="zone"):
        microseconds(datetime(2026, 1, 1))


@given(st.integers(-(2**53), 2**53))
def test_times_come_back(time_us: int) -> None:
    assert microseconds(instant(time_us)) == time_us


@given(st.sets(st.text(max_size=3)), st.sets(st.text(max_size=3)), st.integers(1, 6))
def test_key_ranges_hold_every_key_once(known: set[str], later: set[str], partitions: int) -> None:
    keys = sorted(known, key=str.encode)
    ranges = cut_key_ranges(len(keys), partitions, lambda positions: [keys[each] for each in positions])
    counts = [part.count for part in ranges]
    assert len(ranges) == min(partitions, len(keys))
    assert sum(counts) == len(keys)
    assert not counts or max(counts) - min(counts) <= 1
    for key in known | later if ranges else ():
        holding = [
            part
            for part in ranges
            if (part.start is None or part.start <= key) and (part.end is None or key < part.end)
        ]
        assert len(holding) == 1
