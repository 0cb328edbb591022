"""Batches that are empty or too large, late or early, in every encoding a route reads: refused whole."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from bedplate.codecs import (
    ARROW,
    JSON,
    RAW,
    SearchQueries,
    decode_table,
    encode_events,
    encode_keys_arrow,
    encode_search_arrow,
    encode_table,
    encode_upsert_arrow,
)

from .conftest import NOW, World

SPACE = "/v1/spaces/core@1/item"
TOO_MANY = 100_001
OVER_JSON = (16 << 20) + 1


def _items(rows: int) -> bytes:
    return encode_table(pa.table({"key": [f"i{row}" for row in range(rows)], "features": ["{}"] * rows}))


def _outcomes(rows: int) -> bytes:
    columns = {
        "request_id": pa.array([f"r{row}" for row in range(rows)], pa.string()),
        "item": pa.array(["i"] * rows, pa.string()),
        "label": pa.array(np.ones(rows, np.float32)),
        "outcome_time": pa.array(np.zeros(rows, np.int64), pa.timestamp("us", "UTC")),
    }
    return encode_table(pa.table(columns))


def _events(*minutes: float) -> bytes:
    """Of one user, so many minutes after NOW."""
    rows = len(minutes)
    times = [NOW + timedelta(minutes=one) for one in minutes]
    columns = {
        "user": ["u1"] * rows,
        "item": [f"i{row}" for row in range(rows)],
        "action": ["like"] * rows,
        "surface": ["feed"] * rows,
        "event_time": pa.array(times, pa.timestamp("us", "UTC")),
    }
    return encode_events(pa.table(columns))


def _document(name: str, **more: Any) -> bytes:
    return json.dumps({**more, name: []}).encode()


EMPTY = [
    ("POST", "/v1/events", JSON, _document("events")),
    ("PUT", "/v1/items", JSON, _document("items")),
    ("PUT", "/v1/items", ARROW, _items(0)),
    ("POST", "/v1/outcomes", JSON, _document("outcomes", surface="feed")),
    ("POST", "/v1/outcomes?surface=feed", ARROW, _outcomes(0)),
    (
        "POST",
        f"{SPACE}/upsert",
        ARROW,
        encode_upsert_arrow(np.zeros(0, np.int64), np.zeros((0, 4), np.float32)),
    ),
    ("POST", f"{SPACE}/delete", ARROW, encode_keys_arrow(np.zeros(0, np.int64))),
    ("POST", f"{SPACE}/delete", RAW, b""),
    ("POST", f"{SPACE}/lookup", ARROW, encode_keys_arrow(np.zeros(0, np.int64))),
    ("POST", f"{SPACE}/search", ARROW, encode_search_arrow(SearchQueries(np.zeros((0, 4), np.float32)))),
    ("POST", f"{SPACE}/search", ARROW, encode_search_arrow(SearchQueries(keys=np.zeros(0, np.int64)))),
]
TOO_LARGE = [
    ("PUT", "/v1/items", ARROW, _items(TOO_MANY)),
    ("POST", "/v1/outcomes?surface=feed", ARROW, _outcomes(TOO_MANY)),
    ("POST", f"{SPACE}/delete", ARROW, encode_keys_arrow(np.arange(TOO_MANY))),
    ("POST", f"{SPACE}/delete", RAW, bytes(8 * TOO_MANY)),
    ("POST", "/v1/events", JSON, b" " * OVER_JSON),
    ("PUT", "/v1/items", JSON, b" " * OVER_JSON),
    ("POST", "/v1/outcomes", JSON, b" " * OVER_JSON),
    ("POST", f"{SPACE}/upsert", JSON, b" " * OVER_JSON),
    ("POST", f"{SPACE}/delete", JSON, b" " * OVER_JSON),
    ("POST", f"{SPACE}/lookup", JSON, b" " * OVER_JSON),
]


@pytest.fixture(scope="module")
def filled(shared_world: World) -> World:
    shared_world.publish()
    shared_world.upsert("core@1/item", np.array([1, 2]), np.eye(2, 4, dtype=np.float32))
    return shared_world


def _state(world: World) -> tuple[Any, ...]:
    """Whatever a refused batch might have changed."""
    return (
        decode_table(world.call("GET", "/v1/events").content).num_rows,
        world.ok("GET", "/v1/items"),
        world.ok("GET", SPACE),
        world.ok("POST", f"{SPACE}/lookup", json={"keys": [1, 2]})["found"],
    )


def _ids(cases: list[tuple[str, str, str, bytes]]) -> list[str]:
    return [
        f"{path.rpartition('/')[2]}-{media.rpartition('.')[2]}-{len(body)}" for _, path, media, body in cases
    ]


@pytest.mark.parametrize(("method", "path", "media", "body"), EMPTY, ids=_ids(EMPTY))
def test_an_empty_batch_is_an_error(filled: World, method: str, path: str, media: str, body: bytes) -> None:
    before = _state(filled)
    problem = filled.problem(method, path, content=body, headers={"content-type": media})
    assert (problem["status"], problem["code"]) == (422, "empty_batch")
    assert _state(filled) == before


@pytest.mark.parametrize(("method", "path", "media", "body"), TOO_LARGE, ids=_ids(TOO_LARGE))
def test_a_batch_too_large_is_not_taken(
    filled: World, method: str, path: str, media: str, body: bytes
) -> None:
    before = _state(filled)
    problem = filled.problem(method, path, content=body, headers={"content-type": media})
    assert (problem["status"], problem["code"]) == (413, "batch_too_large")
    assert _state(filled) == before


def test_arrow_events_out_of_order_or_to_come_are_not_taken(world: World) -> None:
    headers = {"content-type": ARROW}
    world.ok("POST", "/v1/events", "feed-team", content=_events(-5), headers=headers)
    late = world.problem("POST", "/v1/events", "feed-team", content=_events(-2, -9), headers=headers)
    assert (late["status"], late["code"], late["row"]) == (409, "events_out_of_order", 1)
    early = world.problem("POST", "/v1/events", "feed-team", content=_events(-1, 30), headers=headers)
    assert (early["status"], early["code"], early["row"]) == (422, "event_in_future", 1)
    assert decode_table(world.call("GET", "/v1/events").content).num_rows == 1
    path = "/v1/events?allow_late=true"
    assert world.ok("POST", path, "feed-team", content=_events(-9), headers=headers)["accepted"] == 1
