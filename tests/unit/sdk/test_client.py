from __future__ import annotations

import asyncio
import inspect
import json
from datetime import UTC, datetime

import httpx
import numpy as np
import pytest

from bedplate import AsyncClient, codecs
from bedplate.client.steps import Namespace, operation
from bedplate.errors import (
    AliasMoved,
    BedplateError,
    DimensionMismatch,
    EmptyBatch,
    Forbidden,
    InternalError,
    InvalidRequest,
    JobFailed,
    NotFound,
    Unavailable,
)
from bedplate.wire.store import EmbedRequest

from .conftest import CREATED, URL, problem

TEAM = {"name": "feed-team", "description": "", "created_at": CREATED}
TEAMS = httpx.Response(200, json={"items": [TEAM], "next": None})
ALIAS = {"foundation": "core", "alias": "production", "version": 7, "moved_at": CREATED}
JOB = {
    "id": "j1",
    "kind": "embed",
    "subject": "core@7/item",
    "state": "running",
    "team": "foundation",
    "progress": [{"stage": "embed", "done": 1, "total": 4}],
    "attempts": 1,
    "created_at": CREATED,
}


def test_a_request_carries_token_and_id(platform, client):
    platform.on("GET /v1/teams", TEAMS)
    assert client.teams.list()[0].name == "feed-team"
    sent = platform.requests[0]
    assert sent.headers["authorization"] == "Bearer secret"
    assert len(sent.headers["x-request-id"]) == 32


def test_both_clients_give_the_same(platform, client):
    platform.on("GET /v1/teams", TEAMS)

    async def ask():
        async with platform.async_client() as asynchronous:
            return await asynchronous.teams.list()

    assert asyncio.run(ask()) == client.teams.list()


def test_both_clients_have_the_same_surface(client, platform):
    asynchronous = platform.async_client()
    for name, namespace in vars(client).items():
        if isinstance(namespace, Namespace):
            methods = [
                one for one in dir(type(namespace)) if isinstance(vars(type(namespace)).get(one), operation)
            ]
            assert methods
            for method in methods:
                assert getattr(namespace, method).__doc__, f"{name}.{method} is not documented"
                assert callable(getattr(getattr(asynchronous, name), method))
    pending = asynchronous.teams.list()
    assert inspect.iscoroutine(pending)
    pending.close()


def test_an_operation_on_the_class_is_documented():
    assert "team" in AsyncClient.whoami.__doc__


def test_pages_are_followed(platform, client):
    second = {**TEAM, "name": "reels-team"}
    platform.on(
        "GET /v1/teams",
        httpx.Response(200, json={"items": [TEAM], "next": "c 1"}),
        httpx.Response(200, json={"items": [second], "next": None}),
    )
    assert [team.name for team in client.teams.list()] == ["feed-team", "reels-team"]
    assert platform.requests[1].url.params["cursor"] == "c 1"


def test_a_cursor_that_repeats_ends_in_an_error(platform, client):
    platform.on("GET /v1/teams", httpx.Response(200, json={"items": [TEAM], "next": "c"}))
    with pytest.raises(InternalError, match="twice"):
        client.teams.list()


def test_what_a_newer_platform_adds_is_passed_over(platform, client):
    platform.on("GET /v1/teams/feed-team", httpx.Response(200, json={**TEAM, "added_later": 1}))
    assert client.teams.get("feed-team").name == "feed-team"


@pytest.mark.parametrize("body", [b"<html>", b"[]", b"{}"])
def test_an_answer_of_another_kind_is_an_error(platform, client, body):
    platform.on("GET /v1/teams/feed-team", httpx.Response(200, content=body))
    with pytest.raises(InternalError, match="no Team that this SDK can read"):
        client.teams.get("feed-team")


def test_a_problem_becomes_its_class(platform, client):
    answer = problem(412, "alias_moved", "core@production points at 8.", actual_version=8)
    platform.on("PUT /v1/foundations/core/aliases/production", answer)
    with pytest.raises(AliasMoved, match="points at 8") as caught:
        client.aliases.move("core", "production", 7, 6)
    assert caught.value.context == {"actual_version": 8}
    assert caught.value.request_id == "from-header"
    assert json.loads(platform.requests[0].content) == {
        "version": 7,
        "expected_version": 6,
        "reason": "",
        "wait_for_readers_seconds": 10.0,
        "force": False,
    }


@pytest.mark.parametrize(
    ("status", "error"),
    [(403, Forbidden), (404, NotFound), (413, BedplateError), (500, InternalError), (502, Unavailable)],
)
def test_an_error_of_a_proxy_becomes_a_class_too(platform, client, status, error):
    platform.on("POST /v1/teams", httpx.Response(status, text="<h1>nope</h1>"))
    with pytest.raises(error, match="without an explanation"):
        client.teams.create("feed-team")


def test_an_unknown_code_is_still_an_error(platform, client):
    platform.on("POST /v1/teams", problem(418, "teapot", "short and stout"))
    with pytest.raises(BedplateError, match="short and stout"):
        client.teams.create("feed-team")


def test_bad_input_is_refused_before_it_is_sent(platform, client):
    with pytest.raises(InvalidRequest, match=r"name: .*Feed Team"):
        client.teams.create("Feed Team")
    with pytest.raises(InvalidRequest, match="is not a name"):
        client.teams.get("..")
    with pytest.raises(InvalidRequest, match="core@7"):
        client.versions.get("core")
    with pytest.raises(InvalidRequest, match="zone"):
        client.timelines.read("u", at=datetime(2026, 1, 1))  # the missing zone is the point
    assert platform.requests == []


def test_keys_are_escaped_into_one_part_of_the_path(platform, client):
    answer = {"key": "a/b?c", "features": {}}
    platform.on("GET /v1/items/a/b?c", httpx.Response(200, json=answer))
    assert client.items.get("a/b?c").key == "a/b?c"
    assert platform.requests[0].url.raw_path == b"/v1/items/a%2Fb%3Fc"


def test_a_broken_connection_is_retried_with_the_same_id(platform, client):
    platform.on("GET /v1/teams", httpx.ConnectError("refused"), problem(503, "unavailable", "wait"), TEAMS)
    assert len(client.teams.list()) == 1
    assert platform.slept == [0.1, 0.4]
    assert len({request.headers["x-request-id"] for request in platform.requests}) == 1


def test_retry_after_is_heeded_but_not_for_ever(platform, client):
    def busy(seconds):
        return httpx.Response(
            503, json={"code": "unavailable", "detail": "d"}, headers={"retry-after": seconds}
        )

    platform.on("GET /v1/teams", busy("2"), busy("3600"), busy("Wed, 21 Oct 2026 07:28:00 GMT"), TEAMS)
    client.teams.list()
    assert platform.slept == [2.0, 10.0, 1.6]


def test_retries_end(platform, client):
    platform.on("GET /v1/teams", httpx.ConnectError("refused"))
    with pytest.raises(Unavailable, match=r"No answer from http://platform\.test .*`bedplate up`") as caught:
        client.teams.list()
    assert len(platform.requests) == 4
    assert caught.value.request_id


def test_other_errors_are_not_retried(platform, client):
    platform.on("GET /v1/teams", problem(500, "internal_error", "broken"))
    with pytest.raises(InternalError):
        client.teams.list()
    assert len(platform.requests) == 1


@pytest.mark.parametrize("failure", [httpx.ReadTimeout("slow"), problem(503, "unavailable", "wait")])
@pytest.mark.parametrize(
    ("route", "call"),
    [
        ("POST /v1/teams", lambda client: client.teams.create("feed-team")),
        (
            "PUT /v1/foundations/core/aliases/production",
            lambda client: client.aliases.move("core", "production", 7, 6),
        ),
        ("POST /v1/spaces/core@7/item/embed", lambda client: client.spaces.embed("core@7/item")),
    ],
)
def test_what_is_not_idempotent_is_sent_once(platform, client, failure, route, call):
    platform.on(route, failure)
    with pytest.raises(Unavailable):
        call(client)
    assert len(platform.requests) == 1


def test_an_embed_with_an_idempotency_key_is_retried(platform, client):
    platform.on(
        "POST /v1/spaces/core@7/item/embed",
        httpx.ReadTimeout("slow"),
        httpx.Response(202, json={"job": "j1"}),
    )
    assert client.spaces.embed("core@7/item", EmbedRequest(idempotency_key="once")) == "j1"


def answer_lookup(request):
    if request.headers["content-type"] == codecs.RAW:
        keys = codecs.decode_keys_raw(request.content)
        found = keys > 1
    else:
        keys = codecs.decode_keys_arrow(request.content)
        found = np.array([key != "a" for key in keys])
    accept = codecs.negotiate(request.headers["accept"], [codecs.RAW])
    dtype = codecs.answer_dtype(accept, "float16")
    vectors = np.where(found[:, None], np.float16(0.1), 0).astype(np.float16) * np.ones((1, 3), np.float16)
    headers = {
        codecs.HEADER_ROWS: str(len(keys)),
        codecs.HEADER_DIM: "3",
        codecs.HEADER_DTYPE: dtype,
        codecs.HEADER_SNAPSHOT: "5",
        codecs.HEADER_VERSION: "core@7",
    }
    return httpx.Response(200, content=codecs.encode_lookup_raw(found, vectors, dtype), headers=headers)


@pytest.mark.parametrize("keys", [[1, 2, 3], np.array([1, 2, 3]), ["a", "b", "c"]])
def test_lookup(platform, client, keys):
    platform.on("POST /v1/spaces/core@production/item/lookup", answer_lookup)
    answer = client.spaces.lookup("core@production/item", keys)
    assert answer.found.tolist() == [False, True, True]
    assert answer.vectors.dtype == np.float16
    assert answer.vectors.shape == (3, 3)
    assert (answer.version, answer.snapshot) == ("core@7", 5)
    assert client.spaces.lookup("core@production/item", keys, dtype="float32").vectors.dtype == np.float32


def test_lookup_behind_a_proxy_that_strips_headers(platform, client):
    platform.on("POST /v1/spaces/core@7/item/lookup", httpx.Response(200, content=b""))
    with pytest.raises(InternalError, match="x-bedplate-rows"):
        client.spaces.lookup("core@7/item", [1])


@pytest.mark.parametrize(
    ("keys", "error"), [([], EmptyBatch), ("1193", InvalidRequest), ([1, "a"], InvalidRequest)]
)
def test_bad_keys_are_refused_before_they_are_sent(platform, client, keys, error):
    with pytest.raises(error):
        client.spaces.lookup("core@7/item", keys)
    assert platform.requests == []


def answer_search(request):
    k = int(request.url.params["k"])
    if request.headers["content-type"] == codecs.RAW:
        count = len(codecs.decode_vectors_raw(request.content, int(request.url.params["dim"])))
    else:
        count = len(codecs.decode_search_arrow(request.content).keys)
    scores = np.full((count, k), -np.inf, dtype=np.float32)
    scores[:, 0] = 0.5
    keys = [["x"] for _ in range(count)]
    body = codecs.encode_search_answer_arrow(keys, scores, np.ones(count, bool), version="core@7", snapshot=5)
    return httpx.Response(200, content=body, headers={"content-type": codecs.ARROW})


def test_search_by_vectors_and_by_keys(platform, client):
    platform.on("POST /v1/spaces/core@7/item/search", answer_search)
    by_vector = client.spaces.search("core@7/item", np.ones((2, 3)), k=2, ef=64)
    assert by_vector.keys == [["x", None], ["x", None]]
    assert by_vector.scores.tolist() == [[0.5, -np.inf]] * 2
    assert platform.requests[0].url.params["ef"] == "64"
    assert platform.requests[0].content == np.ones((2, 3), "<f4").tobytes()
    assert platform.requests[0].url.params["dim"] == "3"
    assert codecs.RAW in platform.requests[0].headers["accept"]
    assert client.spaces.search("core@7/item", [1.0, 2.0, 3.0], k=1).keys == [["x"]]
    assert client.spaces.search("core@7/item", keys=["a", "b", "c"], k=1).found.shape == (3,)
    assert platform.requests[-1].headers["accept"] == codecs.ARROW, "string keys do not come in raw bytes"


def test_hits_of_integer_keys_come_in_raw_bytes(platform, client):
    keys, scores = np.array([[7, -1]]), np.array([[0.5, -np.inf]], np.float32)
    headers = {"x-bedplate-rows": "1", "x-bedplate-snapshot": "5", "x-bedplate-version": "core@7"}
    headers["content-type"] = codecs.RAW
    body = codecs.encode_search_answer_raw(keys, scores)
    platform.on("POST /v1/spaces/core@7/item/search", httpx.Response(200, content=body, headers=headers))
    found = client.spaces.search("core@7/item", np.ones(3), k=2)
    assert (found.keys.tolist(), found.scores.tolist()) == ([[7, -1]], [[0.5, -np.inf]])
    assert (found.found.tolist(), found.version, found.snapshot) == ([True], "core@7", 5)
    body = codecs.encode_search_answer_raw(keys, scores, np.array([True]))
    platform.on("POST /v1/spaces/core@7/item/search", httpx.Response(200, content=body, headers=headers))
    by_key = client.spaces.search("core@7/item", keys=[3], k=2)
    assert (by_key.keys.tolist(), by_key.found.tolist()) == ([[7, -1]], [True])
    assert platform.requests[-1].content == np.array([3], "<i8").tobytes()
    assert platform.requests[-1].url.params["by"] == "key"
    del headers["x-bedplate-rows"]
    platform.on("POST /v1/spaces/core@7/item/search", httpx.Response(200, content=body, headers=headers))
    with pytest.raises(InternalError, match="x-bedplate-rows"):
        client.spaces.search("core@7/item", np.ones(3), k=2)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({}, InvalidRequest),
        ({"vectors": [[1.0]], "keys": [1]}, InvalidRequest),
        ({"vectors": [["a"]]}, DimensionMismatch),
        ({"vectors": np.zeros((1, 2, 3))}, DimensionMismatch),
        ({"vectors": np.zeros((0, 3))}, EmptyBatch),
    ],
)
def test_bad_queries_are_refused_before_they_are_sent(platform, client, arguments, error):
    with pytest.raises(error):
        client.spaces.search("core@7/item", **arguments)
    assert platform.requests == []


def test_upsert_and_delete(platform, client):
    written = httpx.Response(
        200, json={"reference": "core@7/item", "rows": 2, "sequence": 9, "token": "core@7/item:9"}
    )
    platform.on("POST /v1/spaces/core@7/item/upsert", written)
    platform.on("POST /v1/spaces/core@7/item/delete", written)
    vectors = np.ones((2, 3), np.float16)
    assert client.spaces.upsert("core@7/item", [1, 2], vectors).sequence == 9
    keys, sent, _ = codecs.decode_upsert_arrow(platform.requests[0].content)
    assert keys.tolist() == [1, 2]
    assert sent.dtype == np.float16
    client.spaces.delete("core@7/item", ["a"])
    assert codecs.decode_keys_arrow(platform.requests[1].content) == ["a"]


def test_watching_a_job_shows_every_state_and_gives_the_last(platform, client):
    done = {**JOB, "state": "succeeded", "result": {"snapshot": 1}}
    platform.on("GET /v1/jobs/j1", httpx.Response(200, json=JOB), httpx.Response(200, json=done))
    seen = []
    assert client.jobs.watch("j1", lambda job: seen.append(job.state)).result == {"snapshot": 1}
    assert seen == ["running", "succeeded"]
    assert platform.slept == [0.5]


@pytest.mark.parametrize(("state", "match"), [("failed", "no such file"), ("cancelled", "was cancelled")])
def test_watching_a_job_that_fails_raises_the_reason(platform, client, state, match):
    job = {**JOB, "state": state, "error": "no such file" if state == "failed" else None}
    platform.on("GET /v1/jobs/j1", httpx.Response(200, json=job))
    with pytest.raises(JobFailed, match=match) as caught:
        client.jobs.watch("j1")
    assert caught.value.context == {"job": "j1", "state": state}


def test_watching_ends_after_the_time_out(platform, client):
    platform.on("GET /v1/jobs/j1", httpx.Response(200, json=JOB))
    with pytest.raises(Unavailable, match="still running after 2 s"):
        client.jobs.watch("j1", timeout_seconds=2)
    assert sum(platform.slept) == 2


def test_the_transfer_ratio_asks_from_and_to(platform, client):
    platform.on("GET /v1/transfer-ratio", httpx.Response(200, json={"items": [], "next": None}))
    assert client.transfer_ratio("feed", "core@1", "core@2") == []
    params = dict(platform.requests[0].url.params)
    assert params == {"surface": "feed", "from": "core@1", "to": "core@2", "task": "label"}


def test_a_time_in_a_query_keeps_its_zone(platform, client):
    empty = {"user": "u", "at": CREATED, "events": []}
    platform.on("GET /v1/timelines/u", httpx.Response(200, json=empty))
    client.timelines.read("u", at=datetime(2026, 11, 22, tzinfo=UTC), limit=5)
    params = dict(platform.requests[0].url.params)
    assert params == {"at": "2026-11-22T00:00:00+00:00", "limit": "5"}
    assert str(platform.requests[0].url).startswith(URL)
