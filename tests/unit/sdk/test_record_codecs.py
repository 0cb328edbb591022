from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import numpy as np
import pyarrow as pa
import pytest

from bedplate import codecs
from bedplate.codecs import TaeColumns
from bedplate.errors import EmptyBatch, InvalidRequest
from bedplate.wire.store import Event, Item, Outcome

NOW = datetime(2026, 11, 22, 10, 0, 0, 123457, tzinfo=UTC)


def table(**columns) -> pa.Table:
    base = {
        "user": ["u", "v"],
        "item": ["i", "j"],
        "action": ["like", "like"],
        "surface": ["feed", "feed"],
        "event_time": pa.array([1, 2], pa.int64()),
    }
    return pa.table({**base, **columns})


def test_events_come_back_as_documents():
    events = [
        Event(
            user="u", item="i", action="like", surface="feed", event_time=NOW, label=1.0, features={"y": [1]}
        ),
        Event(user="ü", item="j", action="view", surface="reels", event_time=NOW + timedelta(microseconds=1)),
    ]
    decoded = codecs.decode_events(codecs.encode_events(codecs.events_to_table(events)))
    assert decoded.schema == codecs.EVENT_SCHEMA
    assert codecs.events_from_table(decoded) == events


def test_times_of_other_zones_and_units_mean_the_same_moment():
    east = NOW.astimezone(timezone(timedelta(hours=5)))
    for values in (
        pa.array([east, east], pa.timestamp("us", "Asia/Karachi")),
        pa.array([codecs.to_microseconds(NOW)] * 2, pa.int64()),
        pa.array([codecs.to_microseconds(NOW) * 1000 + 999] * 2, pa.timestamp("ns", "UTC")),
    ):
        assert codecs.check_events(table(event_time=values))["event_time"][0].as_py() == NOW


@pytest.mark.parametrize("microseconds", [-1, 0, 1, 978_300_760_123_457, 253_402_300_799_999_999])
def test_microseconds_are_exact(microseconds):
    assert codecs.to_microseconds(codecs.from_microseconds(microseconds)) == microseconds


def test_a_label_that_is_nan_is_none():
    labels = codecs.check_events(table(label=[np.nan, 0.0]))["label"]
    assert labels.to_pylist() == [None, 0.0]


def test_label_and_features_may_be_absent_or_null():
    checked = codecs.check_events(table(label=pa.nulls(2), features=pa.nulls(2)))
    assert checked.schema == codecs.EVENT_SCHEMA
    assert checked.equals(codecs.check_events(table()))


def test_dictionary_columns_are_taken():
    users = pa.array(["u", "v"]).dictionary_encode()
    assert codecs.check_events(table(user=users))["user"].to_pylist() == ["u", "v"]


@pytest.mark.parametrize(
    ("columns", "match"),
    [
        ({"user": ["u", None]}, "'user', row 1: is null"),
        ({"user": ["u", ""]}, "'user', row 1: has 0 characters"),
        ({"item": ["i", "x" * 257]}, "'item', row 1: has 257 characters"),
        ({"action": ["a" * 65, "b"]}, "'action', row 0: has 65 characters"),
        ({"surface": ["feed", "Feed"]}, "'surface', row 1: surface 'Feed' is not allowed"),
        ({"user": pa.array([1, 2])}, "'user' is int64; send it as string"),
        ({"event_time": pa.array([1, 2], pa.timestamp("us"))}, "'event_time' has no zone"),
        ({"event_time": pa.array([1.0, 2.0])}, "'event_time' is double"),
        ({"event_time": pa.array([1, 2**62])}, "'event_time', row 1: .* check the unit"),
        ({"event_time": pa.array([1, None], pa.int64())}, "'event_time', row 1: is null"),
        ({"label": ["a", "b"]}, "'label' is string; send float32"),
        ({"label": [0.0, np.inf]}, "'label', row 1: is infinite"),
        ({"features": ["{}", "[1]"]}, "'features', row 1: is not a JSON object"),
        ({"features": ["{", None]}, "'features', row 0: is not a JSON object"),
        ({"lable": [1.0, 2.0]}, "'lable' is not known"),
    ],
)
def test_bad_events_are_named_by_column_and_row(columns, match):
    with pytest.raises(InvalidRequest, match=match):
        codecs.check_events(table(**columns))


def test_a_missing_column_is_named():
    with pytest.raises(InvalidRequest, match="'item' is missing; the columns are: user, action"):
        codecs.check_events(table().drop_columns(["item"]))


def test_a_column_twice_is_refused():
    twice = table().append_column("user", pa.array(["a", "b"]))
    with pytest.raises(InvalidRequest, match="more than once"):
        codecs.check_events(twice)


@pytest.mark.parametrize("check", [codecs.check_events, codecs.check_items, codecs.check_outcomes])
def test_no_rows_are_an_empty_batch(check):
    schema = {
        codecs.check_events: codecs.EVENT_SCHEMA,
        codecs.check_items: codecs.ITEM_SCHEMA,
        codecs.check_outcomes: codecs.OUTCOME_SCHEMA,
    }[check]
    with pytest.raises(EmptyBatch):
        check(schema.empty_table())


def test_items_come_back():
    items = [Item(key="1193", features={"genres": ["Action"], "year": 1995}), Item(key="x")]
    assert (
        codecs.items_from_table(codecs.decode_items(codecs.encode_items(codecs.items_to_table(items))))
        == items
    )


def test_outcomes_come_back_and_task_defaults():
    outcomes = [Outcome(request_id="r", item="i", label=1, outcome_time=NOW)]
    encoded = codecs.encode_outcomes(codecs.outcomes_to_table(outcomes).drop_columns(["task"]))
    assert codecs.outcomes_from_table(codecs.decode_outcomes(encoded)) == outcomes


def test_an_outcome_needs_a_label():
    with pytest.raises(InvalidRequest, match="'label', row 0: is null"):
        codecs.check_outcomes(
            pa.table({"request_id": ["r"], "item": ["i"], "label": [np.nan], "outcome_time": pa.array([NOW])})
        )


def test_tae_come_back_bit_equal_and_apart():
    rng = np.random.default_rng(0)
    first = TaeColumns(
        "r1",
        NOW,
        7,
        ["a", "b"],
        {"core@1": rng.random((2, 4)).astype(np.float16), "core@2": rng.random((2, 8)).astype(np.float32)},
        {"core@1": np.array([0.1, 0.2], np.float32), "core@2": np.array([0.3, 0.4], np.float32)},
    )
    second = TaeColumns(
        "r2",
        NOW,
        0,
        ["c"],
        {"core@2": rng.random((1, 8)).astype(np.float32)},
        {"core@2": np.ones(1, np.float32)},
    )
    third = TaeColumns("r3", NOW, 1, ["d"], {}, {"core@1": np.zeros(1, np.float32)})
    back = codecs.decode_tae_arrow(codecs.encode_tae_arrow([first, second, third]))
    for sent, got in zip([first, second, third], back, strict=True):
        assert (got.request_id, got.served_at, got.history_events) == (
            sent.request_id,
            NOW,
            sent.history_events,
        )
        assert got.items == sent.items
        assert list(got.vectors) == list(sent.vectors)
        for name, vectors in sent.vectors.items():
            assert got.vectors[name].dtype == vectors.dtype
            assert got.vectors[name].tobytes() == vectors.tobytes()
        for name, predictions in sent.predictions.items():
            np.testing.assert_array_equal(got.predictions[name], predictions)
