"""Writes over REST that PostgreSQL rolls back in favour of another are run again, once each, and answered."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import numpy as np
import pytest
from sqlalchemy import event, text
from sqlalchemy.orm import Session
from tests.engines.postgresql import SERIALISATION_FAILURE
from tests.integration.places import SERVERS

from bedplate import databases
from bedplate.codecs import RAW

from .conftest import NOW, World, checkpoint_files, log_impressions, manifests, signature

pytestmark = pytest.mark.parametrize("engines", [SERVERS], indirect=True)

VERSIONS = "/v1/foundations/core/versions"
EXPERT_VERSIONS = "/v1/experts/ranker/versions"


class GivingWay:
    """Every transaction is rolled back when it first commits, and goes through when it is run again."""

    def __init__(self) -> None:
        self.rolled_back = 0
        self._running_again: set[int] = set()

    def __call__(self, session: Session) -> None:
        if session.in_nested_transaction():
            return
        thread = threading.get_ident()
        if thread in self._running_again:
            self._running_again.remove(thread)
            return
        self._running_again.add(thread)
        self.rolled_back += 1
        session.execute(text(SERIALISATION_FAILURE))


@pytest.fixture
def giving_way(world: World) -> Iterator[GivingWay]:
    """From when ``world`` is there."""
    listener = GivingWay()
    event.listen(databases.WriteSession, "before_commit", listener)
    yield listener
    event.remove(databases.WriteSession, "before_commit", listener)


def publish(world: World, base: str, team: str, document: dict[str, Any], files: dict[str, bytes]) -> None:
    """Draft, amend, upload and finalise a version."""
    version = world.ok("POST", base, team, json=document)["version"]
    world.ok("PUT", f"{base}/{version}", team, json={**document, "description": "amended"})
    for name, data in files.items():
        path = f"{base}/{version}/files/{name}/parts/0"
        world.ok("PUT", path, team, content=data, headers={"content-type": RAW})
    ready = world.ok("POST", f"{base}/{version}/finalise", team)
    assert (ready["state"], ready["description"]) == ("ready", "amended")


def test_teams_tokens_and_surfaces(world: World, giving_way: GivingWay) -> None:
    world.ok("POST", "/v1/teams", json={"name": "new-team"})
    issued = world.ok("POST", "/v1/teams/new-team/tokens", json={})
    world.secrets["new-team"] = issued["secret"]
    world.ok("POST", "/v1/surfaces", "new-team", json={"name": "home", "team": "new-team"})
    world.ok("POST", "/v1/foundations", "new-team", json={"name": "other", "team": "new-team"})
    world.ok("DELETE", f"/v1/teams/new-team/tokens/{issued['id']}", "new-team")
    assert len(world.ok("GET", "/v1/teams/new-team/tokens")["items"]) == 1, "what gave way left nothing"
    assert giving_way.rolled_back >= 5


def test_versions_spaces_and_shards(world: World, giving_way: GivingWay) -> None:
    files = checkpoint_files()
    document = {"signature": signature(), "files": manifests(files)}
    publish(world, VERSIONS, "core-team", document, files)
    spaces = world.ok("GET", "/v1/spaces", params={"foundation": "core"})["items"]
    assert [space["space"] for space in spaces] == ["item", "tae", "user"]
    assignment = {"space": "*", "shards": [0], "node": "node-1", "expected_node": None}
    assert len(world.ok("POST", "/v1/shards/assign", json=assignment)["items"]) == 1
    world.ok("PUT", "/v1/items", "feed-team", json={"items": [{"key": "1"}, {"key": "2"}]})
    for kind in ("embed", "compact"):
        job = world.ok("POST", f"/v1/spaces/core@1/item/{kind}", "core-team")["job"]
        assert world.ok("POST", f"/v1/jobs/{job}/cancel", "core-team")["state"] == "cancelled"
    jobs = world.ok("GET", "/v1/jobs")["items"]
    assert sorted(job["kind"] for job in jobs) == ["compact", "embed"]
    answer = world.upsert("core@1/item", np.arange(2), np.ones((2, 4), np.float32), shown=False)
    assert answer["sequence"] == 1, "what gave way left nothing"
    world.move("production", 1)
    assert len(world.ok("GET", "/v1/foundations/core/aliases/production/history")["items"]) == 1
    publish(world, VERSIONS, "core-team", document, files)
    world.ok("POST", f"{VERSIONS}/2/retire", "core-team")
    assert giving_way.rolled_back >= 12


def test_experts_and_evaluations(world: World, giving_way: GivingWay) -> None:
    world.publish()
    world.ok("POST", "/v1/experts", "feed-team", json={"name": "ranker", "surface": "feed"})
    announced = signature({}, "fm-expert")
    files = checkpoint_files(5, announced)
    document = {
        "signature": announced,
        "files": manifests(files),
        "pinned_version": "core@1",
        "pinned_space": "tae",
    }
    publish(world, EXPERT_VERSIONS, "feed-team", document, files)
    window = {"window_start": "2026-02-01T00:00:00Z", "window_end": "2026-03-01T00:00:00Z"}
    evaluation = {"subject": "core@1", "surface": "feed", **window, "rows": 10, "metrics": {"ne": 0.9}}
    world.ok("POST", "/v1/evaluations", "feed-team", json=evaluation)
    assert len(world.ok("GET", "/v1/evaluations")["items"]) == 1, "what gave way left nothing"
    publish(world, EXPERT_VERSIONS, "feed-team", document, files)
    world.ok("POST", f"{EXPERT_VERSIONS}/2/retire", "feed-team")
    world.ok("PUT", "/v1/experts/ranker/serving", "feed-team", json={"version": 1})
    assert len(world.ok("GET", "/v1/experts/ranker/serving/history")["items"]) == 1
    assert giving_way.rolled_back >= 14


def test_events_outcomes_impressions_and_training_sets(world: World, giving_way: GivingWay) -> None:
    world.publish()
    time = (NOW - timedelta(minutes=1)).isoformat()
    sent = {"user": "u", "item": "i", "action": "like", "surface": "feed", "event_time": time}
    assert world.ok("POST", "/v1/events", "feed-team", json={"events": [sent]})["accepted"] == 1
    assert len(world.ok("GET", "/v1/timelines/u")["events"]) == 1, "what gave way left nothing"
    outcome = {"request_id": "r", "item": "i", "label": 1.0, "outcome_time": time}
    document = {"surface": "feed", "outcomes": [outcome]}
    assert world.ok("POST", "/v1/outcomes", "feed-team", json=document) == {"accepted": 1, "duplicates": 0}
    log_impressions(world)
    assert world.ok("POST", "/v1/impressions/seal")["requests"] == 3
    window = {"window_start": "2026-02-01T00:00:00Z", "window_end": "2026-03-02T00:00:00Z"}
    training_set = {"name": "first", "surface": "feed", "versions": ["core@1"], **window}
    world.ok("POST", "/v1/training-sets", "feed-team", json=training_set)
    assert len(world.ok("GET", "/v1/training-sets")["items"]) == 1
    assert giving_way.rolled_back >= 9
