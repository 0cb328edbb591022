"""Training sets over REST: from the impression log to signed URLs and Arrow streams."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pyarrow as pa
import pytest
from tests.integration.places import FILES

from bedplate.codecs import decode_table
from bedplate_store import jobs, leases, training_sets
from bedplate_store.tables.jobs import PartitionRow

from .conftest import NOW, World, log_impressions

WINDOW = {
    "window_start": (NOW - timedelta(days=1)).isoformat(),
    "window_end": (NOW + timedelta(days=1)).isoformat(),
}


def _work(world: World, job: str) -> None:
    """What the workers do with a training set's partitions."""
    house = world.platform
    for stage in range(2):
        with house.store.read() as session:
            query = session.query(PartitionRow.id).filter_by(job_id=job, stage_position=stage)
            partitions = [row.id for row in query]
        for partition in partitions:
            claim = leases.claim(house.store, partition, "test", 30, house.now())
            assert claim is not None
            if stage == 0:
                result = training_sets.join_partition(house.store, house.objects, claim.params)
                with house.store.write() as session:
                    leases.commit(session, claim, result, house.now())
                continue
            with house.store.read() as session:
                parts = jobs.results(session, job, "join")
            made = training_sets.prepare(house.store, house.objects, claim.params["training_set"], parts)
            with house.store.write() as session:
                leases.commit(session, claim, training_sets.publish(session, made), house.now())


@pytest.fixture
def made(world: World) -> dict[str, Any]:
    """A training set of three requests, finished."""
    world.publish()
    world.move("production", 1)
    log_impressions(world)
    outcomes = [
        {"request_id": f"r{number}", "item": item, "label": 1.0, "outcome_time": NOW.isoformat()}
        for number in range(3)
        for item in ("i1", "i2")
    ]
    world.ok("POST", "/v1/outcomes", "feed-team", json={"surface": "feed", "outcomes": outcomes})
    document = {"name": "first", "surface": "feed", "versions": ["core@production"], **WINDOW}
    made = world.ok("POST", "/v1/training-sets", "feed-team", json=document)
    assert (made["state"], made["versions"], made["team"]) == ("building", ["core@1"], "feed-team")
    early = world.problem("GET", f"/v1/training-sets/{made['id']}/files")
    assert (early["status"], early["code"]) == (409, "conflict")
    _work(world, made["job"])
    return world.ok("GET", f"/v1/training-sets/{made['id']}")


def test_a_training_set_holds_what_was_served(world: World, made: dict[str, Any]) -> None:
    assert (made["state"], made["rows"], made["requests"]) == ("ready", 6, 3)
    base = f"/v1/training-sets/{made['id']}"
    rows = decode_table(world.call("GET", f"{base}/tables/rows").content)
    assert rows.column("item").to_pylist() == ["i1", "i2"] * 3
    tae = np.array(rows.column("tae:core@1").to_pylist(), np.float16)
    np.testing.assert_array_equal(tae[:, 0], [0, 0, 1, 1, 2, 2])
    requests = decode_table(world.call("GET", f"{base}/tables/requests").content)
    assert requests.column("request_id").to_pylist() == ["r0", "r1", "r2"]
    assert world.problem("GET", f"{base}/tables/columns")["status"] == 422
    assert [one["id"] for one in world.ok("GET", "/v1/training-sets?surface=feed")["items"]] == [made["id"]]


def test_an_empty_training_set_says_why(world: World) -> None:
    world.publish()
    world.move("production", 1)
    log_impressions(world)
    document = {"name": "first", "surface": "feed", "versions": ["core@1"], **WINDOW}
    made = world.ok("POST", "/v1/training-sets", "feed-team", json=document)
    _work(world, made["job"])
    shown = world.ok("GET", f"/v1/training-sets/{made['id']}")
    assert (shown["state"], shown["rows"], shown["unlabelled"], shown["incomplete"]) == ("ready", 0, 6, 0)
    problem = world.problem("GET", f"/v1/training-sets/{made['id']}/tables/rows")
    assert (problem["status"], problem["code"]) == (404, "not_found")
    assert "6 impressions have no outcome of task 'label'" in problem["detail"]


def test_signed_urls_need_no_token(world: World, made: dict[str, Any]) -> None:
    files = world.ok("GET", f"/v1/training-sets/{made['id']}/files")
    assert {file["table"] for file in files} == {"rows", "requests"}
    for file in files:
        content = world.fetch(file["url"]).content
        assert len(content) == file["bytes"]
        assert pa.ipc.open_file(content).read_all().num_rows == file["rows"]


@pytest.mark.parametrize("engines", [FILES], indirect=True)  # elsewhere the object store itself looks at them
def test_signed_urls_cannot_be_forged_and_end(world: World, made: dict[str, Any]) -> None:
    for file in world.ok("GET", f"/v1/training-sets/{made['id']}/files"):
        parts = urlsplit(file["url"])
        path = f"{parts.path}?{parts.query}"
        assert world.http.get(path).status_code == 200
        forged = path.replace("signature=", "signature=0")
        assert world.problem("GET", forged, None)["code"] == "forbidden"
        other = path.replace(parts.path, "/v1/objects/checkpoints/secret")
        assert world.problem("GET", other, None)["code"] == "forbidden"
    world.clock.advance(3700)
    assert world.problem("GET", path, None)["code"] == "forbidden"


@pytest.mark.parametrize(
    ("members", "status", "code"),
    [
        ({"surface": "nope"}, 404, "not_found"),
        ({"versions": ["core@9"]}, 404, "not_found"),
        ({"versions": []}, 422, "empty_batch"),
        ({"window_end": WINDOW["window_start"]}, 422, "invalid_request"),
        ({"versions": ["core@1", "core@production"]}, 422, "invalid_request"),
    ],
)
def test_bad_training_sets(world: World, members: dict[str, Any], status: int, code: str) -> None:
    world.publish()
    world.move("production", 1)
    document = {"name": "first", "surface": "feed", "versions": ["core@1"], **WINDOW, **members}
    problem = world.problem("POST", "/v1/training-sets", json=document)
    assert (problem["status"], problem["code"]) == (status, code)
    assert world.ok("GET", "/v1/training-sets")["items"] == []
    assert world.ok("GET", "/v1/jobs")["items"] == []


def test_sealing_on_demand(world: World) -> None:
    log_impressions(world)
    assert world.ok("POST", "/v1/impressions/seal") == {"segments": 1, "requests": 3, "rows": 6}
    assert world.ok("POST", "/v1/impressions/seal")["requests"] == 0
