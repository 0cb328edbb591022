"""Who changed what, by the log: each line names the request, the team, and what the path is about."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from structlog.contextvars import get_contextvars, merge_contextvars
from structlog.testing import capture_logs

from bedplate_services import lookups

from .conftest import World

NAMES = ("request_id", "team", "version", "space", "expert", "job")


@contextmanager
def told(event: str) -> Iterator[list[dict[str, Any]]]:
    """The lines of the log that say this."""
    found: list[dict[str, Any]] = []
    with capture_logs(processors=[merge_contextvars]) as logs:
        yield found
    found += [dict(line) for line in logs if line["event"] == event]


def named(line: dict[str, Any]) -> dict[str, Any]:
    return {name: line[name] for name in NAMES if name in line}


def test_moving_an_alias_is_told(world: World) -> None:
    world.publish()
    body = {"version": 1, "reason": "better on feed"}
    with told("moved an alias") as lines:
        world.ok(
            "PUT",
            "/v1/foundations/core/aliases/production",
            "core-team",
            json=body,
            headers={"x-request-id": "move-1"},
        )
    (line,) = lines
    assert named(line) == {"request_id": "move-1", "team": "core-team", "version": "core@production"}
    assert (line["alias"], line["to"], line["reason"]) == ("core@production", 1, "better on feed")


def test_a_job_is_told_with_the_request_that_asked_for_it_and_keeps_its_id(world: World) -> None:
    world.publish()
    world.ok("PUT", "/v1/items", json={"items": [{"key": "i1"}]})
    with told("job") as lines:
        answer = world.ok(
            "POST", "/v1/spaces/core@1/item/embed", "core-team", headers={"x-request-id": "embed-1"}
        )
    (line,) = lines
    assert named(line) == {
        "request_id": "embed-1",
        "team": "core-team",
        "version": "core@1",
        "space": "item",
        "job": answer["job"],
    }
    with told("cancelled a job") as lines:
        world.ok(
            "POST", f"/v1/jobs/{answer['job']}/cancel", "core-team", headers={"x-request-id": "cancel-1"}
        )
    assert named(lines[0]) == {"request_id": "cancel-1", "team": "core-team", "job": answer["job"]}


def test_a_token_is_told_without_its_secret(world: World) -> None:
    with told("issued a token") as lines:
        issued = world.ok("POST", "/v1/teams/feed-team/tokens", "feed-team", json={})
    assert lines[0]["team"] == lines[0]["for_team"] == "feed-team"
    assert issued["secret"] not in str(lines[0])


def test_a_failed_lookup_names_team_and_version(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.publish()
    world.upsert("core@1/user", ["u1"], np.ones((1, 4), np.float16))

    def fail(*_arguments: Any) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(lookups, "answer", fail)
    with told("request failed") as lines:
        response = world.call("POST", "/v1/spaces/core@1/user/lookup", "feed-team", json={"keys": ["u1"]})
    assert response.status_code == 500
    assert named(lines[0]) == {
        "request_id": response.headers["x-request-id"],
        "team": "feed-team",
        "version": "core@1",
        "space": "user",
    }
    assert not get_contextvars().keys() & set(NAMES)
