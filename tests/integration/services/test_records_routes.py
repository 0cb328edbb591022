"""Events, timelines, items, outcomes and vectors: what is taken in, and what is refused without a trace."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from bedplate.codecs import ARROW, decode_table, encode_events, encode_table, encode_upsert_arrow

from .conftest import NOW, World

ARROW_BODY = {"content-type": ARROW}
UPSERT = "/v1/spaces/core@1/item/upsert"


def event(minutes: float, **members: Any) -> dict[str, Any]:
    """An event ``minutes`` after NOW."""
    time = (NOW + timedelta(minutes=minutes)).isoformat()
    return {"user": "u1", "item": "i1", "action": "like", "surface": "feed", "event_time": time, **members}


def send(world: World, *events: dict[str, Any], **params: Any) -> Any:
    return world.call("POST", "/v1/events", "feed-team", json={"events": list(events)}, params=params)


def timeline(world: World, user: str = "u1") -> list[dict[str, Any]]:
    events: list[dict[str, Any]] = world.ok("GET", f"/v1/timelines/{user}")["events"]
    return events


def test_events_become_a_timeline(world: World) -> None:
    answer = send(
        world, event(-3), event(-2, item="i2", label=1.0), event(-1, features={"genre": "a"})
    ).json()
    assert answer["accepted"] == 3
    assert [one["item"] for one in timeline(world)] == ["i1", "i2", "i1"]
    params = {"at": (NOW - timedelta(minutes=2)).isoformat(), "limit": 5, "surface": "feed"}
    assert len(world.ok("GET", "/v1/timelines/u1", params=params)["events"]) == 1
    assert world.ok("GET", "/v1/items/i1")["features"] == {"genre": "a"}
    assert timeline(world, "somebody/else") == []


def test_events_as_arrow_and_back(world: World) -> None:
    table = pa.table(
        {
            "user": ["u2", "u1"],
            "item": ["i1", "i2"],
            "action": ["like", "skip"],
            "surface": ["feed", "feed"],
            "event_time": pa.array(
                [NOW - timedelta(hours=2), NOW - timedelta(hours=1)], pa.timestamp("us", "UTC")
            ),
            "label": pa.array([1.0, None], pa.float32()),
        }
    )
    world.ok("POST", "/v1/events", "feed-team", content=encode_events(table), headers=ARROW_BODY)
    scanned = decode_table(world.call("GET", "/v1/events").content)
    assert scanned.column("user").to_pylist() == ["u1", "u2"]
    window = {"start": (NOW - timedelta(minutes=90)).isoformat(), "end": NOW.isoformat()}
    assert decode_table(world.call("GET", "/v1/events", params=window).content).num_rows == 1
    empty = {"start": NOW.isoformat()}
    assert decode_table(world.call("GET", "/v1/events", params=empty).content).num_rows == 0


def test_events_out_of_order(world: World) -> None:
    send(world, event(-5))
    problem = send(world, event(-2), event(-9)).json()
    assert (problem["status"], problem["code"], problem["row"]) == (409, "events_out_of_order", 1)
    assert len(timeline(world)) == 1
    assert send(world, event(-9), allow_late="true").status_code == 200
    assert len(timeline(world)) == 2


def test_events_in_the_future(world: World) -> None:
    problem = send(world, event(0.5), event(2)).json()
    assert (problem["status"], problem["code"]) == (422, "event_in_future")
    world.clock.advance(600)
    assert timeline(world) == []
    assert send(world, event(2)).status_code == 200


@pytest.mark.parametrize(
    ("document", "status", "code"),
    [
        ({"events": []}, 422, "empty_batch"),
        ({}, 422, "invalid_request"),
        ({"events": [event(-1, surface="nope")]}, 404, "not_found"),
        ({"events": [event(-1, surface="Bad Name")]}, 422, "invalid_request"),
        ({"events": [event(-1, user="")]}, 422, "invalid_request"),
        ({"events": [event(-1, user="a\x00b")]}, 422, "invalid_request"),
        ({"events": [event(-1, event_time="2026-03-01T10:00:00")]}, 422, "invalid_request"),
        ({"events": [event(-1), event(-1, extra=1)]}, 422, "invalid_request"),
    ],
)
def test_bad_events_are_not_taken(world: World, document: Any, status: int, code: str) -> None:
    problem = world.problem("POST", "/v1/events", "feed-team", json=document)
    assert (problem["status"], problem["code"]) == (status, code)
    assert decode_table(world.call("GET", "/v1/events").content).num_rows == 0


def _table(rows: int, **columns: Any) -> bytes:
    default = {name: pa.array(["x"] * rows) for name in ("user", "item", "action")}
    default["surface"] = pa.array(["feed"] * rows)
    default["event_time"] = pa.array([0] * rows, pa.int64())
    return encode_table(pa.table({**default, **columns}))


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"", 422, "invalid_request"),
        (b"ARROW1 but not really", 422, "invalid_request"),
        (_table(2)[:-40], 422, "invalid_request"),
        (_table(0), 422, "empty_batch"),
        (_table(100_001), 413, "batch_too_large"),
        (_table(1, event_time=pa.array(["yesterday"])), 422, "invalid_request"),
        (_table(1, features=pa.array(["[1, 2]"])), 422, "invalid_request"),
        (_table(1, label=pa.array([np.inf])), 422, "invalid_request"),
        (_table(1, user=pa.array([None], pa.string())), 422, "invalid_request"),
        (encode_table(pa.table({"user": ["u"]})), 422, "invalid_request"),
    ],
)
def test_bad_arrow_is_not_taken(world: World, body: bytes, status: int, code: str) -> None:
    problem = world.problem("POST", "/v1/events", "feed-team", content=body, headers=ARROW_BODY)
    assert (problem["status"], problem["code"]) == (status, code)
    assert decode_table(world.call("GET", "/v1/events").content).num_rows == 0


def test_wrong_content_types(world: World) -> None:
    world.publish()
    headers = {"content-type": "text/csv"}
    for method, path in (
        ("POST", "/v1/events"),
        ("PUT", "/v1/items"),
        ("POST", "/v1/outcomes"),
        ("POST", UPSERT),
    ):
        problem = world.problem(method, path, content=b"a,b", headers=headers)
        assert (problem["status"], problem["code"]) == (415, "unsupported_media_type"), path


def test_items_in_pages(world: World) -> None:
    items = [{"key": f"i/{number}", "features": {"year": number}} for number in range(5)]
    assert world.ok("PUT", "/v1/items", "feed-team", json={"items": items}) == {"accepted": 5}
    first = world.ok("GET", "/v1/items", params={"limit": 3})
    second = world.ok("GET", "/v1/items", params={"limit": 3, "cursor": first["next"]})
    assert first["items"] + second["items"] == items
    assert second["next"] is None
    assert world.ok("GET", "/v1/items/i%2F3")["features"] == {"year": 3}
    table = decode_table(world.call("GET", "/v1/items", headers={"accept": ARROW}).content)
    assert table.column("key").to_pylist() == [item["key"] for item in items]
    assert world.problem("GET", "/v1/items/none")["code"] == "not_found"


@pytest.mark.parametrize(
    ("document", "code"),
    [
        ({"items": []}, "empty_batch"),
        ({"items": [{"key": ""}]}, "invalid_request"),
        ({"items": [{"key": "fine"}, {"key": "bad", "features": [1]}]}, "invalid_request"),
    ],
)
def test_bad_items_are_not_taken(world: World, document: Any, code: str) -> None:
    assert world.problem("PUT", "/v1/items", "feed-team", json=document)["code"] == code
    assert world.ok("GET", "/v1/items")["items"] == []


def _outcome(**members: Any) -> dict[str, Any]:
    time = (NOW - timedelta(minutes=1)).isoformat()
    return {"request_id": "r1", "item": "i1", "label": 1.0, "outcome_time": time, **members}


def _record(world: World, *outcomes: dict[str, Any]) -> Any:
    document = {"surface": "feed", "outcomes": list(outcomes)}
    return world.call("POST", "/v1/outcomes", "feed-team", json=document).json()


def test_outcomes(world: World) -> None:
    assert _record(world, _outcome()) == {"accepted": 1, "duplicates": 0}
    problem = _record(world, _outcome(item="i2"), _outcome(label=0.0))
    assert (problem["status"], problem["code"]) == (409, "conflict")
    assert _record(world, _outcome(item="i2"), _outcome()) == {"accepted": 1, "duplicates": 1}
    body = encode_table(
        pa.table(
            {"request_id": ["r2"], "item": ["i1"], "label": [0.0], "outcome_time": pa.array([0], pa.int64())}
        )
    )
    needs = world.problem("POST", "/v1/outcomes", "feed-team", content=body, headers=ARROW_BODY)
    assert "?surface=" in needs["detail"]
    path = "/v1/outcomes?surface=feed"
    assert world.ok("POST", path, "feed-team", content=body, headers=ARROW_BODY)["accepted"] == 1


@pytest.mark.parametrize(
    ("members", "status", "code"),
    [
        ({"outcome_time": (NOW + timedelta(hours=1)).isoformat()}, 422, "event_in_future"),
        ({"request_id": ""}, 422, "invalid_request"),
        ({"label": None}, 422, "invalid_request"),
    ],
)
def test_bad_outcomes(world: World, members: dict[str, Any], status: int, code: str) -> None:
    problem = _record(world, _outcome(request_id="good"), _outcome(**members))
    assert (problem["status"], problem["code"]) == (status, code)
    assert _record(world, _outcome(request_id="good")) == {"accepted": 1, "duplicates": 0}


GOOD = np.ones((1, 4), np.float32)


@pytest.mark.parametrize(
    ("body", "media", "status", "code"),
    [
        (encode_upsert_arrow(np.array([1]), np.ones((1, 3), np.float32)), ARROW, 422, "dimension_mismatch"),
        (encode_upsert_arrow(np.array([1]), GOOD * np.nan), ARROW, 422, "non_finite_vectors"),
        (encode_upsert_arrow(np.array([1]), GOOD * np.inf), ARROW, 422, "non_finite_vectors"),
        (encode_upsert_arrow(["one"], GOOD), ARROW, 422, "key_type_mismatch"),
        (
            encode_upsert_arrow(np.zeros(100_001, np.int64), np.ones((100_001, 4), np.float32)),
            ARROW,
            413,
            "batch_too_large",
        ),
        (b"not arrow", ARROW, 422, "invalid_request"),
        (b'{"keys": [], "vectors": []}', "application/json", 422, "empty_batch"),
        (b'{"keys": [1, 2], "vectors": [[1, 2, 3, 4]]}', "application/json", 422, "invalid_request"),
        (b'{"keys": [1, 2], "vectors": [[1, 2, 3, 4], [1]]}', "application/json", 422, "dimension_mismatch"),
        (b'{"keys": [1], "vectors": [[1, 2, 3, 1e39]]}', "application/json", 422, "non_finite_vectors"),
        (b'{"keys": [1], "vectors": [[1, 2, 3, NaN]]}', "application/json", 422, "non_finite_vectors"),
        (b'{"keys": [1]', "application/json", 422, "invalid_request"),
    ],
)
def test_bad_vectors_are_not_written(world: World, body: bytes, media: str, status: int, code: str) -> None:
    world.publish()
    before = world.ok("GET", "/v1/spaces/core@1/item")
    problem = world.problem("POST", UPSERT, "core-team", content=body, headers={"content-type": media})
    assert (problem["status"], problem["code"]) == (status, code)
    assert world.ok("GET", "/v1/spaces/core@1/item") == before
    lookup = world.problem("POST", "/v1/spaces/core@1/item/lookup", json={"keys": [1]})
    assert lookup["code"] == "space_not_ready"


def test_writes_into_what_is_not_there(world: World) -> None:
    world.publish()
    draft = world.draft()
    document = {"keys": [1], "vectors": [[1, 2, 3, 4]]}
    for space, code in (
        ("core@7/item", "not_found"),
        ("core@1/nope", "not_found"),
        (f"core@{draft}/item", "version_not_ready"),
    ):
        problem = world.problem("POST", f"/v1/spaces/{space}/upsert", "core-team", json=document)
        assert problem["code"] == code
    assert world.ok("GET", "/v1/spaces/core@1/item")["pending_rows"] == 0


def test_a_write_says_its_sequence(world: World) -> None:
    world.publish()
    first = world.upsert("core@1/item", np.array([5, 5, 6]), np.ones((3, 4), np.float32))
    assert (first["reference"], first["rows"]) == ("core@1/item", 2)
    gone = world.ok("POST", "/v1/spaces/core@1/item/delete", "core-team", json={"keys": [5, 999]})
    assert gone["sequence"] == first["sequence"] + 1
    empty = world.problem("POST", "/v1/spaces/core@1/item/delete", "core-team", json={"keys": []})
    assert empty["code"] == "empty_batch"


def test_embed_jobs(world: World) -> None:
    world.publish()
    path = "/v1/spaces/core@1/item/embed"
    nothing = world.problem("POST", path, "core-team", json={})
    assert (nothing["status"], nothing["code"]) == (409, "conflict")
    assert world.problem("POST", "/v1/spaces/core@1/tae/embed", "core-team", json={})["status"] == 422
    world.ok("PUT", "/v1/items", "feed-team", json={"items": [{"key": "1"}, {"key": "2"}]})
    document = {"partitions": 2, "idempotency_key": "once"}
    job = world.ok("POST", path, "core-team", json=document)["job"]
    assert world.ok("POST", path, "core-team", json=document)["job"] == job
    shown = world.ok("GET", f"/v1/jobs/{job}")
    assert (shown["kind"], shown["subject"], shown["team"]) == ("embed", "core@1/item", "core-team")
    assert [one["stage"] for one in shown["progress"]] == ["embed", "merge", "assemble", "publish"]
    assert world.ok("GET", "/v1/jobs", params={"state": "queued"})["items"][0]["id"] == job
    assert world.ok("GET", "/v1/jobs", params={"state": "failed"})["items"] == []
    assert world.problem("GET", "/v1/jobs/job-none")["code"] == "not_found"
    for attributes, status in ((["year"], 422), (["key"], 422), (["a"] * 65, 413), ([], 202)):
        answer = world.call("POST", path, "core-team", json={"attributes": attributes})
        assert answer.status_code == status, attributes
    future = {"as_of": (NOW + timedelta(days=1)).isoformat()}
    assert world.problem("POST", path, "core-team", json=future)["status"] == 422
    assert len(world.ok("GET", "/v1/jobs")["items"]) == 2
