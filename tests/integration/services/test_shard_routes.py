"""The table of who serves which shard, over REST; and a store node that answers nobody but the API."""

from __future__ import annotations

from typing import Any

import httpx
import numpy as np
import pytest
from structlog.contextvars import merge_contextvars
from structlog.testing import capture_logs

from bedplate.errors import InvalidRequest
from bedplate_services.settings import Settings
from bedplate_services.shards.node import NodeApp, create_app

from .conftest import World

ASSIGN = "/v1/shards/assign"


def document(node: str | None, expected: str | None, *shards: int, space: str = "*") -> dict[str, Any]:
    return {"space": space, "shards": list(shards), "node": node, "expected_node": expected}


def assigned(world: World) -> dict[int, str]:
    return {one["shard"]: one["node"] for one in world.ok("GET", "/v1/shards", "feed-team")["items"]}


def test_shards_move_by_compare_and_swap_all_or_none_and_every_move_is_kept(world: World) -> None:
    world.ok("POST", ASSIGN, json=document("node-1", None, 0, 1))
    world.ok("POST", ASSIGN, json=document("node-2", "node-1", 1))
    problem = world.problem("POST", ASSIGN, json=document("node-3", "node-1", 0, 1))
    assert (problem["status"], problem["code"]) == (412, "shard_moved")
    assert (problem["shard"], problem["node"]) == (1, "node-2")
    assert assigned(world) == {0: "node-1", 1: "node-2"}
    assert world.problem("POST", ASSIGN, json=document("node-3", None, 0))["code"] == "shard_moved"
    assert world.ok("POST", ASSIGN, json=document(None, "node-2", 1))["items"] == []
    assert assigned(world) == {0: "node-1"}
    moves = world.ok("GET", "/v1/shards/moves?limit=2")["items"]
    assert [(one["shard"], one["from_node"], one["to_node"]) for one in moves] == [
        (1, "node-2", None),
        (1, "node-1", "node-2"),
    ]


def test_only_an_admin_moves_shards(world: World) -> None:
    problem = world.problem("POST", ASSIGN, "core-team", json=document("node-1", None, 0))
    assert problem["status"] == 403
    assert assigned(world) == {}


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (document("node-1", None, 128), 422),
        (document("node-1", None), 422),
        (document("Not a name", None, 0), 422),
        (document("node-1", None, 0, space="core@9/nowhere"), 404),
        (document("node-1", None, 0, space="core@production/item"), 422),
        (document("node-1", None, 0, space="nonsense"), 422),
    ],
)
def test_what_cannot_be_assigned_is_refused_and_nothing_is_written(
    world: World, sent: dict[str, Any], status: int
) -> None:
    assert world.problem("POST", ASSIGN, json=sent)["status"] == status
    assert assigned(world) == {}
    assert world.ok("GET", "/v1/shards/moves")["items"] == []


def test_spaces_of_one_shard_are_served_as_before_and_partial_answers_mean_nothing_there(
    world: World,
) -> None:
    version = world.publish(1)
    world.upsert(f"core@{version}/item", np.array([1], np.int64), np.ones((1, 4), np.float32))
    world.ok("POST", ASSIGN, json=document("node-1", None, *range(128)))
    path = f"/v1/spaces/core@{version}/item/lookup?allow_partial=true"
    answer = world.call("POST", path, json={"keys": [1]})
    assert answer.json()["found"] == [True]
    assert "x-bedplate-shards" not in answer.headers


def test_a_node_without_a_name_or_a_secret_does_not_start(settings: Settings) -> None:
    with pytest.raises(InvalidRequest, match="BEDPLATE_STORE_NODE and BEDPLATE_SHARD_SECRET"):
        create_app(settings)


def make_node(world: World) -> NodeApp:
    kept = world.platform.settings.model_dump(exclude={"store_node", "shard_secret"})
    return create_app(Settings(**{**kept, "store_node": "node-1", "shard_secret": "told to nobody"}))


@pytest.mark.anyio
async def test_a_node_that_breaks_names_the_requests_and_the_space_in_its_log(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = make_node(world)

    def broken(*_state: object) -> None:
        raise RuntimeError("broken")

    monkeypatch.setattr(node._node, "at", broken)
    target = "/internal/shards/lookup?space=core@1/item&snapshot=1&sequence=0&shards=0"
    headers = {"authorization": "Bearer told to nobody", "x-request-id": "one,other"}
    async with httpx.AsyncClient(transport=httpx.ASGITransport(node), base_url="http://node") as client:
        with capture_logs(processors=[merge_contextvars]) as lines:
            assert (await client.post(target, headers=headers)).status_code == 500
    (line,) = [line for line in lines if line["event"] == "request failed"]
    assert (line["request_id"], line["version"], line["space"]) == ("one,other", "core@1", "item")


@pytest.mark.anyio
async def test_a_node_answers_only_those_who_know_the_secret(world: World) -> None:
    node = make_node(world)
    transport = httpx.ASGITransport(node)
    target = "/internal/shards/lookup?space=core@1/item&snapshot=1&sequence=0&shards=0"
    async with httpx.AsyncClient(transport=transport, base_url="http://node") as client:
        assert (await client.get("/healthz")).status_code == 200
        assert (await client.get("/readyz")).status_code == 503  # it has not looked at the assignments yet
        assert (await client.post(target)).status_code == 401
        wrong = {"authorization": "Bearer told to somebody"}
        assert (await client.post(target, headers=wrong)).status_code == 401
        right = {"authorization": "Bearer told to nobody"}
        assert (await client.post(target, headers=right)).status_code == 409  # it has no such shard
        assert (await client.post("/internal/shards/lookup", headers=right)).status_code == 422
        named = await client.post(target, headers={**right, "x-request-id": "one,other"})
        assert named.headers["x-request-id"] == "one,other"
        assert (await client.get("/v1/spaces")).status_code == 404
        metrics = (await client.get("/metrics")).text
        assert 'bedplate_store_node_requests_total{method="GET",route="/healthz",status="200"} 1.0' in metrics
        node.draining.begin()
        leaving = await client.get("/readyz")
        assert (leaving.status_code, leaving.headers["connection"]) == (503, "close")
        assert "told to stop" in leaving.json()["detail"]
