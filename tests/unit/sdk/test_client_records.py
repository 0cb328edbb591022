from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta

import httpx
import numpy as np
import pyarrow as pa
import pytest

from bedplate import codecs
from bedplate.codecs import TaeColumns
from bedplate.errors import EventsOutOfOrder, InvalidRequest, Unavailable
from bedplate.wire.serving import RankRequest, TaeRequest
from bedplate.wire.store import Event, Item, Outcome

from .conftest import problem

NOW = datetime(2026, 11, 22, 10, tzinfo=UTC)
ROWS = 120_000
ENDPOINTS = httpx.Response(
    200,
    json={
        "registry": "http://a",
        "store": "http://a",
        "inference": "http://inference.test:9",
        "version": "1",
    },
)


def many_events() -> dict[str, object]:
    return {
        "user": np.arange(ROWS).astype(str),
        "item": ["i"] * ROWS,
        "action": ["like"] * ROWS,
        "surface": ["feed"] * ROWS,
        "event_time": np.arange(ROWS),
    }


def accept(request):
    rows = codecs.decode_events(request.content).num_rows
    return httpx.Response(200, json={"accepted": rows, "sequence": rows})


def test_events_go_in_requests_of_fifty_thousand(platform, client):
    platform.on("POST /v1/events", accept)
    seen = []
    answer = client.events.send(many_events(), allow_late=True, progress=lambda *counts: seen.append(counts))
    assert (answer.accepted, answer.sequence) == (ROWS, 20_000)
    assert seen == [(50_000, ROWS), (100_000, ROWS), (ROWS, ROWS)]
    sent = pa.concat_tables([codecs.decode_events(request.content) for request in platform.requests])
    assert sent["user"].to_pylist() == [str(number) for number in range(ROWS)]
    assert platform.requests[0].url.params["allow_late"] == "true"


def test_an_error_tells_how_many_rows_are_in(platform, client):
    platform.on("POST /v1/events", accept, problem(409, "events_out_of_order", "row 3 is older"))
    with pytest.raises(EventsOutOfOrder) as caught:
        client.events.send(many_events())
    assert caught.value.context["rows_accepted"] == 50_000


def test_events_are_never_sent_twice(platform, client):
    platform.on("POST /v1/events", httpx.ReadTimeout("slow"))
    with pytest.raises(Unavailable):
        client.events.send([Event(user="u", item="i", action="a", surface="feed", event_time=NOW)])
    assert len(platform.requests) == 1


def test_bad_events_are_refused_before_any_is_sent(platform, client):
    columns = many_events()
    columns["surface"] = ["feed"] * (ROWS - 1) + ["No Surface"]
    with pytest.raises(InvalidRequest, match=f"row {ROWS - 1}"):
        client.events.send(columns)
    with pytest.raises(InvalidRequest, match="do not make a table"):
        client.events.send({"user": ["a", "b"], "item": ["c"]})
    assert platform.requests == []


def test_events_are_scanned(platform, client):
    table = codecs.events_to_table([Event(user="u", item="i", action="a", surface="feed", event_time=NOW)])
    table = table.drop_columns(["features"])
    platform.on("GET /v1/events", httpx.Response(200, content=codecs.encode_table(table)))
    assert client.events.scan(NOW, NOW + timedelta(days=1)).equals(table)
    assert platform.requests[0].url.params["end"] == "2026-11-23T10:00:00+00:00"


@pytest.mark.parametrize(
    "items",
    [
        [Item(key="a", features={"y": 1})],
        {"a": {"y": 1}},
        pa.table({"key": ["a"], "features": ['{"y": 1}']}),
    ],
)
def test_items_in_three_forms(platform, client, items):
    platform.on("PUT /v1/items", httpx.Response(200, json={"accepted": 1}))
    assert client.items.put(items).accepted == 1
    decoded = codecs.decode_items(platform.requests[0].content)
    assert codecs.items_from_table(decoded) == [Item(key="a", features={"y": 1})]


def test_the_catalogue_is_scanned(platform, client):
    items = [Item(key="a", features={"y": 1}), Item(key="b")]
    body = codecs.encode_items(codecs.items_to_table(items))
    platform.on("GET /v1/items", httpx.Response(200, content=body))
    assert client.items.scan() == items


def test_outcomes_are_retried_because_they_are_idempotent(platform, client):
    answer = httpx.Response(200, json={"accepted": 1, "duplicates": 0})
    platform.on("POST /v1/outcomes", httpx.ReadTimeout("slow"), answer)
    outcome = Outcome(request_id="r", item="i", label=1, outcome_time=NOW)
    assert client.outcomes.record("feed", [outcome]).accepted == 1
    assert platform.requests[1].url.params["surface"] == "feed"


def answer_tae(request):
    sent = [TaeRequest(**one) for one in _requests(request)]
    answers = [
        TaeColumns(
            one.request_id or "made",
            NOW,
            3,
            one.candidates,
            {"core@7": np.ones((len(one.candidates), 2), np.float16)} if one.include_vectors else {},
            {"core@7": np.full(len(one.candidates), 0.5, np.float32)},
        )
        for one in sent
    ]
    return httpx.Response(200, content=codecs.encode_tae_arrow(answers))


def _requests(request):
    document = json.loads(request.content)
    return document.get("requests", [document])


def test_tae_come_from_the_inference_service(platform, client):
    platform.on("GET /v1/endpoints", ENDPOINTS)
    platform.on("POST /v1/tae", answer_tae)
    platform.on("POST /v1/tae/batch", answer_tae)
    answer = client.tae.compute("u", "feed", ["a", "b"], request_id="r")
    assert answer.vectors["core@7"].shape == (2, 2)
    assert answer.predictions["core@7"].tolist() == [0.5, 0.5]
    batch = [TaeRequest(user="u", surface="feed", candidates=["a"], include_vectors=False)] * 2
    assert [one.vectors for one in client.tae.batch(batch)] == [{}, {}]
    assert platform.paths() == ["GET /v1/endpoints", "POST /v1/tae", "POST /v1/tae/batch"]
    assert platform.requests[1].url.host == "inference.test"
    assert platform.requests[1].headers["authorization"] == "Bearer secret"


RANKED = {
    "request_id": "r",
    "surface": "feed",
    "expert": "feed-ranker@1",
    "foundation_version": "core@7",
    "snapshots": {},
    "served_at": "2026-11-22T10:00:00Z",
    "scores": [0.1, 0.9],
    "order": [1, 0],
}


def test_ranking_takes_a_user_or_a_document(platform, client):
    platform.on("GET /v1/endpoints", ENDPOINTS)
    platform.on("POST /v1/surfaces/feed/rank", httpx.Response(200, json=RANKED))
    assert client.rank("feed", "u", ["a", "b"], at=NOW).order == [1, 0]
    assert client.rank("feed", RankRequest(user="u", candidates=["a", "b"])).expert == "feed-ranker@1"
    with pytest.raises(InvalidRequest, match="candidates"):
        client.rank("feed", "u")


def test_only_an_unlogged_ranking_is_retried(platform, client):
    platform.on("GET /v1/endpoints", ENDPOINTS)
    platform.on("POST /v1/surfaces/feed/rank", httpx.ReadTimeout("slow"))
    with pytest.raises(Unavailable):
        client.rank("feed", "u", ["a"])
    assert len(platform.requests) == 2
    with pytest.raises(Unavailable):
        client.rank("feed", "u", ["a"], log=False)
    # The endpoint is asked for again: the service may have moved.
    assert platform.paths().count("GET /v1/endpoints") == 2
    assert platform.paths().count("POST /v1/surfaces/feed/rank") == 1 + 4


def test_the_asynchronous_client_ranks_side_by_side(platform):
    platform.on("GET /v1/endpoints", ENDPOINTS)
    platform.on("POST /v1/surfaces/feed/rank", httpx.Response(200, json=RANKED))

    async def ask():
        async with platform.async_client() as client:
            return await asyncio.gather(*(client.rank("feed", "u", ["a", "b"]) for _ in range(8)))

    assert [answer.order for answer in asyncio.run(ask())] == [[1, 0]] * 8
