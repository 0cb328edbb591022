"""Who gets in, and who may change what: 401 and 403 on every route that needs them."""

from __future__ import annotations

import re
from typing import Any

import pytest

from bedplate.codecs import ARROW, RAW, encode_keys_arrow

from .conftest import World, checkpoint_files, manifests, signature

OPEN = {"/healthz", "/readyz", "/metrics", "/v1/endpoints", "/v1/objects/{key}"}
OCTETS = {"content-type": RAW}


def _operations(world: World) -> list[tuple[str, str]]:
    paths = world.api.http.openapi()["paths"]
    return [(method, path) for path, item in paths.items() for method in item if method != "parameters"]


def _filled(path: str) -> str:
    return (
        path.replace("{id}", "1")
        .replace("{version}", "1")
        .replace("{part}", "0")
        .replace("{", "")
        .replace("}", "")
    )


def test_every_route_needs_a_token(world: World) -> None:
    asked = [(method, path) for method, path in _operations(world) if path not in OPEN]
    assert len(asked) > 60
    for method, path in asked:
        problem = world.problem(method.upper(), _filled(path), None)
        assert (problem["status"], problem["code"]) == (401, "unauthenticated"), (method, path)


@pytest.mark.parametrize("value", ["Bearer nonsense", "Basic dXNlcjpwYXNz", "Bearer", "Bearer  "])
def test_a_bad_token_is_refused(world: World, value: str) -> None:
    response = world.http.get("/v1/whoami", headers={"authorization": value})
    assert response.status_code == 401
    assert response.headers["www-authenticate"] == "Bearer"


def test_the_body_is_not_read_without_a_token(world: World) -> None:
    assert world.problem("POST", "/v1/teams", None, content=b"{broken")["status"] == 401


def test_whoami(world: World) -> None:
    assert world.ok("GET", "/v1/whoami", "feed-team") == {"team": "feed-team", "role": "member"}
    assert world.ok("GET", "/v1/whoami")["role"] == "admin"


def test_a_revoked_token_stops_working(world: World) -> None:
    issued = world.ok("POST", "/v1/teams/feed-team/tokens", "feed-team", json={"description": "second"})
    headers = {"authorization": f"Bearer {issued['secret']}"}
    assert world.http.get("/v1/whoami", headers=headers).status_code == 200
    assert "secret" not in world.ok("GET", "/v1/teams/feed-team/tokens", "feed-team")["items"][-1]
    world.ok("DELETE", f"/v1/teams/feed-team/tokens/{issued['id']}", "feed-team")
    assert world.http.get("/v1/whoami", headers=headers).status_code == 401


def test_members_issue_no_admin_tokens(world: World) -> None:
    document = {"role": "admin"}
    assert world.problem("POST", "/v1/teams/feed-team/tokens", "feed-team", json=document)["status"] == 403
    assert world.ok("POST", "/v1/teams/feed-team/tokens", json=document)["role"] == "admin"


def test_members_revoke_no_admin_tokens(world: World) -> None:
    issued = world.ok("POST", "/v1/teams/feed-team/tokens", json={"role": "admin"})
    path = f"/v1/teams/feed-team/tokens/{issued['id']}"
    problem = world.problem("DELETE", path, "feed-team")
    assert (problem["status"], problem["code"]) == (403, "forbidden")
    headers = {"authorization": f"Bearer {issued['secret']}"}
    assert world.http.get("/v1/whoami", headers=headers).json()["role"] == "admin"
    assert world.problem("DELETE", "/v1/teams/core-team/tokens/9999", "core-team")["status"] == 404
    world.ok("DELETE", path)
    assert world.http.get("/v1/whoami", headers=headers).status_code == 401


def _forbidden_requests() -> list[tuple[str, str, dict[str, Any]]]:
    """One request for each mutating route, complete but for the right to send it."""
    version = {"signature": signature(), "files": manifests(checkpoint_files())}
    event = {
        "user": "u",
        "item": "i",
        "action": "like",
        "surface": "feed",
        "event_time": "2026-03-01T10:00:00Z",
    }
    outcome = {"request_id": "r", "item": "i", "label": 1, "outcome_time": "2026-03-01T10:00:00Z"}
    window = {"window_start": "2026-02-01T00:00:00Z", "window_end": "2026-03-01T00:00:00Z"}
    evaluation = {"subject": "core@1", "surface": "feed", **window, "rows": 9, "metrics": {"ne": 0.9}}
    training_set = {"name": "one", "surface": "feed", "versions": ["core@1"], **window}
    foundation, expert = "/v1/foundations/core/versions", "/v1/experts/ranker/versions"
    space = "/v1/spaces/core@1/item"
    return [
        ("POST", "/v1/teams", {"json": {"name": "new-team"}}),
        ("POST", "/v1/teams/core-team/tokens", {"json": {}}),
        ("GET", "/v1/teams/core-team/tokens", {}),
        ("DELETE", "/v1/teams/core-team/tokens/2", {}),
        ("POST", "/v1/surfaces", {"json": {"name": "reels", "team": "feed-team"}}),
        ("POST", "/v1/foundations", {"json": {"name": "next", "team": "core-team"}}),
        ("POST", foundation, {"json": version}),
        ("PUT", f"{foundation}/1", {"json": version}),
        ("PUT", f"{foundation}/1/files/config.json/parts/0", {"content": b"{}", "headers": OCTETS}),
        ("POST", f"{foundation}/1/finalise", {}),
        ("POST", f"{foundation}/1/retire", {}),
        ("PUT", "/v1/foundations/core/aliases/production", {"json": {"version": 1}}),
        ("POST", "/v1/experts", {"json": {"name": "second", "surface": "feed"}}),
        ("POST", expert, {"json": version}),
        ("PUT", f"{expert}/1", {"json": version}),
        ("PUT", f"{expert}/1/files/config.json/parts/0", {"content": b"{}", "headers": OCTETS}),
        ("POST", f"{expert}/1/finalise", {}),
        ("POST", f"{expert}/1/retire", {}),
        ("PUT", "/v1/experts/ranker/serving", {"json": {"version": 1}}),
        ("POST", "/v1/evaluations", {"json": evaluation}),
        ("POST", f"{space}/upsert", {"json": {"keys": [1], "vectors": [[1, 2, 3, 4]]}}),
        (
            "POST",
            f"{space}/delete",
            {"content": encode_keys_arrow(["1"]), "headers": {"content-type": ARROW}},
        ),
        ("POST", f"{space}/embed", {"json": {}}),
        ("POST", f"{space}/compact", {}),
        ("POST", "/v1/events", {"json": {"events": [event]}}),
        ("PUT", "/v1/items", {"json": {"items": [{"key": "1"}]}}),
        ("POST", "/v1/outcomes", {"json": {"surface": "feed", "outcomes": [outcome]}}),
        ("POST", "/v1/training-sets", {"json": training_set}),
        ("POST", "/v1/impressions/seal", {}),
        ("POST", "/v1/shards/assign", {"json": {"shards": [0], "node": "one", "expected_node": None}}),
    ]


def test_teams_write_only_what_they_own(world: World) -> None:
    world.publish()
    world.ok("POST", "/v1/experts", "feed-team", json={"name": "ranker", "surface": "feed"})
    asked = _forbidden_requests()
    for method, path, more in asked:
        problem = world.problem(method, path, "other-team", **more)
        assert (problem["status"], problem["code"]) == (403, "forbidden"), (method, path, problem)
    assert world.ok("GET", "/v1/foundations/core/versions")["items"][0]["state"] == "ready"
    assert world.ok("GET", "/v1/jobs")["items"] == []
    assert world.ok("GET", "/v1/items")["items"] == []


def test_every_mutating_route_is_among_them(world: World) -> None:
    """So that a new route cannot forget to ask who owns what it changes."""
    reads = {
        ("post", "/v1/spaces/{reference}/{space}/lookup"),
        ("post", "/v1/spaces/{reference}/{space}/search"),
    }
    tested = {("post", "/v1/jobs/{id}/cancel")}  # below: it takes a job
    mutating = {pair for pair in _operations(world) if pair[0] != "get"} - reads - tested
    forbidden = {
        (method, template)
        for method, template in mutating
        for asked, path, _ in _forbidden_requests()
        if asked.lower() == method and re.fullmatch(re.sub(r"\{[^}]+\}", "[^/]+", template), path)
    }
    assert forbidden == mutating


def test_jobs_are_cancelled_by_their_team(world: World) -> None:
    world.publish()
    job = world.ok("POST", "/v1/spaces/core@1/item/compact", "core-team")["job"]
    assert world.problem("POST", f"/v1/jobs/{job}/cancel", "other-team")["status"] == 403
    assert world.ok("GET", f"/v1/jobs/{job}")["state"] == "queued"
    assert world.ok("POST", f"/v1/jobs/{job}/cancel", "core-team")["state"] == "cancelled"
