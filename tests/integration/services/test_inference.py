"""The inference service with real (small, untrained) models: answers, the log, ranking, reloading."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bedplate.codecs import ARROW, RAW, decode_tae_arrow
from bedplate_modeling.checkpoints import save_checkpoint
from bedplate_modeling.config import ExpertConfig, FoundationConfig
from bedplate_modeling.events import History
from bedplate_modeling.expert import ExpertModel
from bedplate_modeling.expert_rows import ExpertRows
from bedplate_modeling.foundation import FoundationModel
from bedplate_modeling.requests import TaeRequest
from bedplate_modeling.runtime import ExpertRuntime, FoundationRuntime
from bedplate_modeling.vocabulary import Vocabulary
from bedplate_services.composition import build_platform
from bedplate_services.inference import Inference, create_app
from bedplate_services.metrics import NullMetrics
from bedplate_store.impressions import ImpressionLog, scan

from .conftest import NOW, TestClient, World

ITEMS = [f"i{number}" for number in range(12)]
VOCABULARY = Vocabulary(tuple(ITEMS[:10]), ("genre=a", "genre=b"), ("like", "skip"), ("feed",))
VERSIONS = ["core@1", "core@2"]
CANDIDATES = ["i3", "i7", "unseen"]


def _foundation(folder: Path, seed: int, dtype: str) -> Path:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        config = FoundationConfig(dim=8, heads=2, layers=2, max_history=6, storage_dtype=dtype)
        table = torch.zeros((11, 1), dtype=torch.int64)
        model = FoundationModel(config, VOCABULARY, table)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter) * 0.3)
    save_checkpoint(folder, model.eval())
    return folder


def _expert(folder: Path, pinned: str | None, inputs: str) -> Path:
    names = {"none": (), "tae": ("tae",), "vectors": ("user", "item")}[inputs]
    spaces = tuple(f"{pinned}/{name}" for name in names)
    config = ExpertConfig(
        surface="feed",
        foundation_inputs=inputs,
        foundation_dim=0 if pinned is None else 8,
        foundation_version=pinned,
        spaces=spaces,
        history_length=4,
        dim=8,
        hidden=8,
    )
    with torch.random.fork_rng():
        torch.manual_seed(9)
        model = ExpertModel(config, VOCABULARY, torch.zeros((11, 1), dtype=torch.int64))
    save_checkpoint(folder, model.eval())
    return folder


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("checkpoints")
    return {
        "core@1": _foundation(root / "core-1", 1, "float16"),
        "core@2": _foundation(root / "core-2", 2, "float32"),
        "ranker@1": _expert(root / "ranker-1", "core@1", "tae"),
        "vectors": _expert(root / "vectors", "core@1", "vectors"),
        "one-stage": _expert(root / "one-stage", None, "none"),
    }


def _publish(world: World, base: str, team: str, folder: Path, **members: Any) -> int:
    files = {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
    document = {
        "signature": json.loads(files["signature.json"]),
        "files": [
            {"name": name, "sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data), "parts": 1}
            for name, data in files.items()
        ],
        **members,
    }
    version = int(world.ok("POST", base, team, json=document)["version"])
    for name, data in files.items():
        path = f"{base}/{version}/files/{name}/parts/0"
        world.ok("PUT", path, team, content=data, headers={"content-type": RAW})
    world.ok("POST", f"{base}/{version}/finalise", team)
    return version


class Served:
    """The inference service beside the API of a world, on the same databases and directories."""

    def __init__(self, world: World) -> None:
        settings = world.platform.settings
        house = build_platform(settings, service="test", metrics=NullMetrics(), now=world.clock)
        self.world = world
        self.app: Inference = create_app(settings, house)
        self.spool = settings.spool_dir

    def poll(self) -> None:
        assert self.app.platform.readers.looked.wait(30)
        self.app.serving.keeper.poll()

    def call(
        self, path: str, document: Any, team: str = "feed-team", accept: str = "application/json"
    ) -> Any:
        headers = {"authorization": f"Bearer {self.world.secrets[team]}", "accept": accept}
        return self.http.post(path, json=document, headers=headers)

    def ok(self, path: str, document: Any, team: str = "feed-team") -> Any:
        response = self.call(path, document, team)
        assert response.status_code == 200, response.text
        return response.json()

    def problem(self, path: str, document: Any, team: str = "feed-team") -> Any:
        response = self.call(path, document, team)
        assert response.headers["content-type"] == "application/problem+json", response.text
        return response.json()

    def logged(self) -> list[dict[str, Any]]:
        """Every candidate in the log, after sealing it."""
        platform = self.world.platform
        ImpressionLog(self.spool, platform.objects, platform.store).seal(NOW)
        start = datetime(2020, 1, 1, tzinfo=UTC)
        tables = scan(platform.store, platform.objects, "feed", (start, NOW + timedelta(days=1)), VERSIONS)
        return [row for table in tables for row in table.to_pylist()]

    http: TestClient


@pytest.fixture
def served(world: World, checkpoints: dict[str, Path]) -> Iterator[Served]:
    """Version 1 is active; the user has events; the poll is done by hand."""
    events = [
        {
            "user": "u1",
            "item": ITEMS[number],
            "action": "like" if number % 2 else "skip",
            "surface": "feed",
            "event_time": (NOW - timedelta(hours=10 - number)).isoformat(),
        }
        for number in range(8)
    ]
    world.ok("POST", "/v1/events", "feed-team", json={"events": events})
    world.ok("PUT", "/v1/items", "feed-team", json={"items": [{"key": "unseen", "features": {"genre": "a"}}]})
    _publish(world, "/v1/foundations/core/versions", "core-team", checkpoints["core@1"])
    world.move("production", 1)
    served = Served(world)
    with TestClient(served.app, raise_server_exceptions=False) as served.http:
        served.poll()
        yield served


def _request(**members: Any) -> dict[str, Any]:
    return {"user": "u1", "surface": "feed", "candidates": CANDIDATES, **members}


def _expected(folder: Path, at: datetime = NOW) -> Any:
    """What the model says when asked directly about the user's events before ``at``."""
    hours = [number for number in range(8) if NOW - timedelta(hours=10 - number) < at]
    history = History(
        [ITEMS[number] for number in hours],
        ["like" if number % 2 else "skip" for number in hours],
        ["feed"] * len(hours),
        np.array(
            [int((NOW - timedelta(hours=10 - number)).timestamp() * 1000) for number in hours], np.int64
        ),
    )
    request = TaeRequest(
        "u1", "feed", int(at.timestamp() * 1000), CANDIDATES, history, {"unseen": {"genre": "a"}}
    )
    return FoundationRuntime.load(folder).tae([request])[0]


def test_the_answer_is_the_models(served: Served, checkpoints: dict[str, Path]) -> None:
    answer = served.ok("/v1/tae", _request())
    expected = _expected(checkpoints["core@1"])
    (version,) = answer["versions"]
    assert (version["version"], version["dim"], answer["history_events"]) == ("core@1", 8, 6)
    np.testing.assert_array_equal(
        np.array(version["vectors"], np.float16), expected.tae_MD.astype(np.float16)
    )
    np.testing.assert_allclose(version["predictions"], expected.prediction_M, rtol=1e-5)


def test_foundations_run_on_the_device_of_the_settings(served: Served) -> None:
    own = served.world.platform.settings
    settings = own.model_copy(update={"device": "meta"})  # there everywhere, and not cpu
    app = create_app(settings, build_platform(settings, service="test", metrics=NullMetrics()))
    app.serving.keeper.poll()
    (foundation,) = app.serving.keeper.current.foundations.values()
    assert foundation.runtime.device.type == "meta"
    assert {parameter.device.type for parameter in foundation.runtime.model.parameters()} == {"meta"}
    app.close()


def test_arrow_says_the_same_as_json_and_as_the_log(served: Served) -> None:
    (columns,) = decode_tae_arrow(served.call("/v1/tae", _request(request_id="r1"), accept=ARROW).content)
    assert columns.vectors["core@1"].dtype == np.float16
    document = served.ok("/v1/tae", _request(request_id="r2", log=False))
    np.testing.assert_array_equal(
        np.array(document["versions"][0]["vectors"], np.float16), columns.vectors["core@1"]
    )
    rows = served.logged()
    assert {row["request_id"] for row in rows} == {"r1"}
    assert [row["item"] for row in rows] == CANDIDATES
    logged = np.array([row["tae:core@1"] for row in rows], np.float16)
    assert logged.tobytes() == columns.vectors["core@1"].tobytes()


def test_only_events_before_the_moment_are_seen(served: Served, checkpoints: dict[str, Path]) -> None:
    at = NOW - timedelta(hours=7)
    answer = served.ok("/v1/tae", _request(at=at.isoformat()))
    assert answer["history_events"] == 3
    assert datetime.fromisoformat(answer["served_at"]) == at
    expected = _expected(checkpoints["core@1"], at).tae_MD.astype(np.float16)
    np.testing.assert_array_equal(np.array(answer["versions"][0]["vectors"], np.float16), expected)


def test_the_same_with_and_without_the_cache(served: Served) -> None:
    first = served.ok("/v1/tae", _request(log=False))
    again = served.ok("/v1/tae", _request(log=False))
    assert first["versions"] == again["versions"]
    event = {"user": "u1", "item": "i5", "action": "like", "surface": "feed", "event_time": NOW.isoformat()}
    served.world.ok("POST", "/v1/events", "feed-team", json={"events": [event]})
    served.world.clock.advance(60)
    assert served.ok("/v1/tae", _request(log=False))["versions"] != first["versions"]


def test_many_at_once(served: Served) -> None:
    alone = served.ok("/v1/tae", _request(log=False))["versions"][0]["vectors"]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda n: served.ok("/v1/tae", _request(request_id=f"q{n}")), range(24)))
    for answer in answers:
        np.testing.assert_allclose(answer["versions"][0]["vectors"], alone, atol=2e-3)
    assert len({row["request_id"] for row in served.logged()}) == 24


def test_a_batch_is_answered_in_order(served: Served) -> None:
    requests = [_request(request_id="a"), _request(request_id="b", user="nobody", include_vectors=False)]
    answers = served.ok("/v1/tae/batch", {"requests": requests})["answers"]
    assert [answer["request_id"] for answer in answers] == ["a", "b"]
    assert [answer["history_events"] for answer in answers] == [6, 0]
    assert answers[1]["versions"][0]["vectors"] is None
    response = served.call("/v1/tae/batch", {"requests": requests}, accept=ARROW)
    assert [one.request_id for one in decode_tae_arrow(response.content)] == ["a", "b"]


def test_new_users_together_are_answered_as_alone(served: Served) -> None:
    users = [f"new-{number}" for number in range(5)]
    events = [
        {"user": user, "item": "i2", "action": "like", "surface": "feed", "event_time": NOW.isoformat()}
        for user in users
    ]
    served.world.ok("POST", "/v1/events", "feed-team", json={"events": events})
    served.world.clock.advance(60)
    requests = [_request(user=user, log=False) for user in [*users, "u1"]]
    together = served.ok("/v1/tae/batch", {"requests": requests})["answers"]
    alone = [served.ok("/v1/tae", request) for request in requests]
    for one, other in zip(together, alone, strict=True):
        np.testing.assert_allclose(one["versions"][0]["vectors"], other["versions"][0]["vectors"], atol=2e-3)


def test_one_checkpoint_published_twice(served: Served, checkpoints: dict[str, Path]) -> None:
    _publish(served.world, "/v1/foundations/core/versions", "core-team", checkpoints["core@1"])
    served.world.move("candidate", 2)
    served.poll()
    first, second = served.ok("/v1/tae", _request())["versions"]
    assert (first["version"], second["version"]) == ("core@1", "core@2")
    assert first["vectors"] == second["vectors"]


def test_the_same_request_id_with_other_candidates_is_a_conflict(served: Served) -> None:
    served.ok("/v1/tae", _request(request_id="r"))
    problem = served.problem("/v1/tae", _request(request_id="r", candidates=["i1"]))
    assert (problem["status"], problem["code"]) == (409, "conflict")
    assert [row["item"] for row in served.logged()] == CANDIDATES


def _serve_expert(served: Served, checkpoints: dict[str, Path], name: str = "ranker@1", **pin: str) -> None:
    world = served.world
    world.ok("POST", "/v1/experts", "feed-team", json={"name": "ranker", "surface": "feed"})
    if name == "ranker@1":
        pin = {"pinned_version": "core@1", "pinned_space": "tae"}
    _publish(world, "/v1/experts/ranker/versions", "feed-team", checkpoints[name], **pin)
    world.ok("PUT", "/v1/experts/ranker/serving", "feed-team", json={"version": 1})
    served.poll()


def test_ranking_scores_the_logged_bytes(served: Served, checkpoints: dict[str, Path]) -> None:
    _serve_expert(served, checkpoints)
    answer = served.ok(
        "/v1/surfaces/feed/rank", {"user": "u1", "candidates": CANDIDATES, "request_id": "ranked"}
    )
    assert (answer["expert"], answer["foundation_version"]) == ("ranker@1", "core@1")
    assert answer["snapshots"] == {}, "TAE come from the model, not from a snapshot"
    assert answer["order"] == np.argsort(-np.array(answer["scores"])).tolist()
    rows = served.logged()
    assert [row["expert"] for row in rows] == ["ranker@1"] * 3
    np.testing.assert_array_equal([row["score"] for row in rows], np.array(answer["scores"], np.float32))
    inputs = _inputs(tae_ND=np.array([row["tae:core@1"] for row in rows], np.float32))
    expected = ExpertRuntime.load(checkpoints["ranker@1"]).score(inputs)
    np.testing.assert_allclose(answer["scores"], expected, rtol=1e-6)


def _recent() -> History:
    """The user's last four events."""
    numbers = range(4, 8)
    times = [int((NOW - timedelta(hours=10 - number)).timestamp() * 1000) for number in numbers]
    actions = ["like" if number % 2 else "skip" for number in numbers]
    return History([ITEMS[number] for number in numbers], actions, ["feed"] * 4, np.array(times, np.int64))


def _inputs(**vectors: Any) -> ExpertRows:
    return ExpertRows(
        items=CANDIDATES,
        request_index_N=np.zeros(3, np.int64),
        histories=[_recent()],
        request_at_ms_R=np.array([int(NOW.timestamp() * 1000)]),
        item_features={"unseen": {"genre": "a"}},
        **vectors,
    )


def test_an_expert_on_vectors_reads_them_from_the_store(served: Served, checkpoints: dict[str, Path]) -> None:
    random = np.random.default_rng(1)
    user, items = random.random((1, 8), np.float32), random.random((2, 8), np.float32)
    served.world.upsert("core@1/user", ["u1"], user)
    pin = {"pinned_version": "core@1", "pinned_space": "item"}
    _serve_expert(served, checkpoints, "vectors", **pin)
    request = {"user": "u1", "candidates": CANDIDATES, "log": False}
    assert served.problem("/v1/surfaces/feed/rank", request)["code"] == "space_not_ready"
    served.world.upsert("core@1/item", CANDIDATES[:2], items)
    answer = served.ok("/v1/surfaces/feed/rank", request)
    assert answer["snapshots"] == {"core@1/user": 0, "core@1/item": 0}, "only writes, nothing published yet"
    rows = _inputs(
        user_vectors_ND=np.repeat(user.astype(np.float16).astype(np.float32), 3, axis=0),
        user_found_N=np.ones(3, np.bool_),
        item_vectors_ND=np.concatenate([items, np.zeros((1, 8))]).astype(np.float16).astype(np.float32),
        item_found_N=np.array([True, True, False]),
    )
    expected = ExpertRuntime.load(checkpoints["vectors"]).score(rows)
    np.testing.assert_allclose(answer["scores"], expected, rtol=1e-5)


def test_a_one_stage_expert_needs_no_foundation(served: Served, checkpoints: dict[str, Path]) -> None:
    _serve_expert(served, checkpoints, "one-stage")
    request = {"user": "u1", "candidates": CANDIDATES, "log": False}
    answer = served.ok("/v1/surfaces/feed/rank", request)
    assert answer["foundation_version"] is None
    expected = ExpertRuntime.load(checkpoints["one-stage"]).score(_inputs())
    np.testing.assert_allclose(answer["scores"], expected, rtol=1e-5)


def test_a_rank_uses_only_the_pinned_version(served: Served, checkpoints: dict[str, Path]) -> None:
    _serve_expert(served, checkpoints)
    request = {"user": "u1", "candidates": CANDIDATES}
    before = served.ok("/v1/surfaces/feed/rank", {**request, "log": False})
    _publish(served.world, "/v1/foundations/core/versions", "core-team", checkpoints["core@2"])
    served.world.move("production", 2, expected=1)
    served.poll()
    after = served.ok("/v1/surfaces/feed/rank", {**request, "request_id": "both"})
    assert after["foundation_version"] == "core@1"
    np.testing.assert_allclose(after["scores"], before["scores"], rtol=1e-5)
    (row, *_) = served.logged()
    assert {name for name in row if name.startswith("tae:")} == {"tae:core@1", "tae:core@2"}


def test_versions_come_and_go_without_a_failed_request(served: Served, checkpoints: dict[str, Path]) -> None:
    world = served.world
    assert [one["version"] for one in served.ok("/v1/tae", _request())["versions"]] == ["core@1"]
    _publish(world, "/v1/foundations/core/versions", "core-team", checkpoints["core@2"])
    world.move("candidate", 2)
    served.poll()
    assert [one["version"] for one in served.ok("/v1/tae", _request())["versions"]] == ["core@1", "core@2"]
    only = served.ok("/v1/tae", _request(versions=["core@candidate"]))["versions"]
    assert [one["version"] for one in only] == ["core@2"]
    world.move("production", 2, expected=1)
    served.poll()
    assert [one["version"] for one in served.ok("/v1/tae", _request())["versions"]] == ["core@2"]
    assert served.problem("/v1/tae", _request(versions=["core@1"]))["code"] == "not_found"


def test_what_was_promoted_a_moment_ago_answers(served: Served, checkpoints: dict[str, Path]) -> None:
    world = served.world
    _publish(world, "/v1/foundations/core/versions", "core-team", checkpoints["core@2"])
    assert served.problem("/v1/tae", _request(versions=["core@2"]))["code"] == "not_found"
    world.move("candidate", 2)
    for reference in ("core@2", "core@candidate"):
        answer = served.ok("/v1/tae", _request(versions=[reference]))
        assert [one["version"] for one in answer["versions"]] == ["core@2"]


def test_a_damaged_checkpoint_keeps_the_old_version_serving(
    served: Served, checkpoints: dict[str, Path]
) -> None:
    world = served.world
    assert served.http.get("/readyz").status_code == 200
    _publish(world, "/v1/foundations/core/versions", "core-team", checkpoints["core@2"])
    with world.platform.registry.read() as session:
        from bedplate_registry import versions

        key, _ = versions.file_object(session, "core", 2, "model.safetensors")
    world.platform.objects.put(key, b"damaged")
    world.move("production", 2, expected=1)
    served.poll()
    assert served.http.get("/readyz").status_code == 200, "it serves what it served before"
    assert [one["version"] for one in served.ok("/v1/tae", _request())["versions"]] == ["core@1"]


@pytest.mark.parametrize(
    ("members", "status", "code"),
    [
        ({"candidates": []}, 422, "empty_batch"),
        ({"candidates": ["i"] * 2001}, 413, "batch_too_large"),
        ({"candidates": [""]}, 422, "invalid_request"),
        ({"candidates": ["a\x00b"]}, 422, "invalid_request"),
        ({"surface": "nope"}, 404, "not_found"),
        ({"versions": ["core@9"]}, 404, "not_found"),
        ({"versions": ["core"]}, 422, "invalid_request"),
        ({"at": "2026-03-01T10:00:00"}, 422, "invalid_request"),
        ({"at": "2027-03-01T10:00:00Z"}, 422, "invalid_request"),
        ({"request_id": "x" * 65}, 422, "invalid_request"),
    ],
)
def test_bad_requests_are_not_logged(served: Served, members: dict[str, Any], status: int, code: str) -> None:
    problem = served.problem("/v1/tae", _request(**members))
    assert (problem["status"], problem["code"]) == (status, code)
    assert served.problem("/v1/tae/batch", {"requests": [_request(), _request(**members)]})["code"] == code
    assert served.logged() == []


def test_bad_rankings(served: Served) -> None:
    request = {"user": "u1", "candidates": CANDIDATES}
    assert served.problem("/v1/surfaces/feed/rank", request)["code"] == "not_found"
    assert served.problem("/v1/surfaces/nope/rank", request)["code"] == "not_found"
    assert served.problem("/v1/tae/batch", {"requests": []})["code"] == "empty_batch"
    many = {"requests": [_request(request_id=f"r{number}") for number in range(257)]}
    too_many = served.problem("/v1/tae/batch", many)
    assert (too_many["status"], too_many["code"]) == (413, "batch_too_large")
    crowded = [_request(candidates=["i"] * 2000, request_id=f"r{number}") for number in range(26)]
    assert served.problem("/v1/tae/batch", {"requests": crowded})["code"] == "batch_too_large"


def test_who_may_log(served: Served) -> None:
    assert served.http.post("/v1/tae", json=_request()).status_code == 401
    assert served.problem("/v1/tae", _request(), "other-team")["code"] == "forbidden"
    rank = {"user": "u1", "candidates": CANDIDATES}
    assert served.problem("/v1/surfaces/feed/rank", rank, "other-team")["code"] == "forbidden"
    batch = {"requests": [_request(log=False), _request()]}
    assert served.http.post("/v1/tae/batch", json=batch).status_code == 401
    assert served.problem("/v1/tae/batch", batch, "other-team")["code"] == "forbidden"
    assert served.ok("/v1/tae", _request(log=False), "other-team")["versions"]
    assert served.logged() == []


def test_nothing_active_says_what_to_do(world: World, tmp_path: Path) -> None:
    served = Served(world)
    assert served.app.serving.keeper.current.active == ()
    with TestClient(served.app, raise_server_exceptions=False) as served.http:
        served.poll()
        assert served.http.get("/readyz").status_code == 200
        problem = served.problem("/v1/tae", _request())
    assert (problem["status"], problem["code"]) == (409, "version_not_ready")
