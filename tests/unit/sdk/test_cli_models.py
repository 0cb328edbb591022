"""What the commands on foundations, versions, experts, training sets, ranking and jobs do and print."""

from __future__ import annotations

import json

import httpx
import pytest

from .conftest import CREATED
from .test_cli import VERSION
from .test_client import JOB
from .test_publishing import WEIGHTS, Registry, directory
from .test_training_sets import SET, files

__all__ = ["directory", "files"]  # fixtures: a checkpoint directory, and a training set's files

EXPERT = {"name": "feed-ranker", "surface": "feed", "description": "", "created_at": CREATED}
EXPERT_VERSION = {
    "expert": "feed-ranker",
    "version": 3,
    "surface": "feed",
    "state": "ready",
    "pinned_version": "core@7",
    "pinned_space": "tae",
    "training_set": "t1",
    "signature": {"architecture": "fm-expert", "tensors": {}},
    "files": VERSION["files"],
    "digest": "0" * 64,
    "created_at": CREATED,
}
EXPERTS = "/v1/experts/feed-ranker"


def answers(status, document):
    return httpx.Response(status, json=document)


@pytest.fixture
def run_json(run):
    """Run a command with --json: standard output is one JSON document and nothing else."""

    def call(*arguments):
        code, out, err = run(*arguments, "--json")
        assert code == 0, err
        return json.loads(out)

    return call


def sent(platform):
    return json.loads(platform.requests[-1].content)


def test_a_foundation_is_created_for_a_team(platform, run, run_json):
    made = {"name": "core", "team": "foundation", "description": "all of it", "created_at": CREATED}
    platform.on("POST /v1/foundations", answers(201, made))
    arguments = ("foundations", "create", "core", "--team", "foundation", "--description", "all of it")
    assert run_json(*arguments)["team"] == "foundation"
    assert sent(platform) == {"name": "core", "team": "foundation", "description": "all of it"}
    code, out, err = run(*arguments)
    assert code == 0
    assert "foundation" in out
    assert "bedplate versions publish core" in err


def test_a_version_is_published_with_its_metrics(platform, run_json, directory):
    registry = Registry(platform)
    window = ("--window-start", "2026-01-01T00:00:00Z", "--window-end", "2026-02-01T00:00:00Z")
    arguments = (
        "versions",
        "publish",
        "core",
        str(directory),
        "--parent",
        "6",
        "--metric",
        "ne=0.87",
        *window,
    )
    assert run_json(*arguments)["state"] == "ready"
    assert registry.joined("model.safetensors") == WEIGHTS
    (draft,) = registry.drafts
    assert (draft["parent"], draft["metrics"]) == (6, {"ne": 0.87})
    assert draft["training_window_end"].startswith("2026-02-01")


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--window-start", "2026-01-01T00:00:00Z"), "both --window-start and --window-end"),
        (("--metric", "ne:0.87"), "ne=0.87"),
    ],
)
def test_a_version_is_not_published_with_half_of_its_facts(platform, run, directory, options, told):
    code, out, err = run("versions", "publish", "core", str(directory), *options)
    assert (code, out) == (2, "")
    assert told in err
    assert platform.requests == []


def test_a_version_is_shown_by_alias_and_retired(platform, run, run_json):
    platform.on("GET /v1/foundations/core/versions/production", answers(200, VERSION))
    platform.on("POST /v1/foundations/core/versions/7/retire", answers(200, {**VERSION, "state": "retired"}))
    assert run_json("versions", "show", "core@production")["reference"] == "core@7"
    out = run("versions", "show", "core@production")[1]
    assert "signature" not in out, "people are not shown hundreds of tensors"
    assert run_json("versions", "retire", "core@7")["state"] == "retired"
    assert "core@7 is retired" in run("versions", "retire", "core@7")[2]


def test_an_expert_is_created_and_shown_with_its_versions(platform, run, run_json):
    platform.on("POST /v1/experts", answers(201, EXPERT))
    assert run_json("experts", "create", "feed-ranker", "--surface", "feed")["name"] == "feed-ranker"
    assert sent(platform)["surface"] == "feed"
    platform.on(f"GET {EXPERTS}", answers(200, EXPERT))
    platform.on(f"GET {EXPERTS}/versions", answers(200, {"items": [EXPERT_VERSION], "next": None}))
    platform.on(f"GET {EXPERTS}/versions/3", answers(200, EXPERT_VERSION))
    assert run_json("experts", "show", "feed-ranker")["versions"][0]["pinned_version"] == "core@7"
    out = run("experts", "show", "feed-ranker")[1]
    assert "feed-ranker@3" in out
    assert run_json("experts", "show", "feed-ranker@3")["training_set"] == "t1"


def test_an_expert_is_published_pinned(platform, run, run_json, directory):
    registry = Registry(platform, "experts", "feed-ranker")
    arguments = ("experts", "publish", "feed-ranker", str(directory), "--training-set", "t1")
    assert run_json(*arguments, "--pin", "core@7/tae")["state"] == "ready"
    (draft,) = registry.drafts
    assert (draft["pinned_version"], draft["pinned_space"], draft["training_set"]) == ("core@7", "tae", "t1")
    platform.requests.clear()
    code, _, err = run(*arguments, "--pin", "core@7")
    assert code == 2
    assert "core@7/tae" in err
    assert platform.requests == []


def test_an_expert_serves_from_what_serves_now(platform, run, run_json):
    platform.on(f"GET {EXPERTS}", answers(200, {**EXPERT, "serving_version": 2}))
    platform.on(f"PUT {EXPERTS}/serving", answers(200, {**EXPERT, "serving_version": 3}))
    assert run_json("experts", "serve", "feed-ranker@3", "--reason", "better")["serving_version"] == 3
    assert sent(platform) == {"version": 3, "expected_version": 2, "reason": "better"}
    assert "feed-ranker@3 serves feed" in run("experts", "serve", "feed-ranker@3", "--expected", "0")[2]
    assert sent(platform)["expected_version"] is None
    assert run("experts", "serve", "feed-ranker@production")[0] == 2


WINDOW = ("--start", "2026-11-16T00:00:00Z", "--end", "2026-11-23T00:00:00Z")


def test_a_training_set_is_made_and_waited_for(platform, run, run_json):
    building = {**SET, "state": "building"}
    platform.on("POST /v1/training-sets", answers(201, building))
    platform.on("GET /v1/training-sets/t1", answers(200, building), answers(200, SET))
    done = {**JOB, "id": "j1", "state": "succeeded"}
    platform.on("GET /v1/jobs/j1", answers(200, {**done, "state": "running"}), answers(200, done))
    arguments = ("training-sets", "create", "week", "--surface", "feed", "--version", "core@1", *WINDOW)
    assert run_json(*arguments, "--version", "core@2")["state"] == "ready"
    assert platform.slept == [0.5]
    assert run_json(*arguments, "--no-wait")["state"] == "building"
    assert sent(platform)["versions"] == ["core@1"]
    assert run(*arguments[:-4])[0] == 2, "a window needs both of its ends"


def test_a_training_set_is_shown_and_downloaded(platform, run, run_json, files, tmp_path):
    assert run_json("training-sets", "show", "t1")["name"] == "week"
    folder = tmp_path / "week"
    assert run_json("training-sets", "download", "t1", str(folder))["id"] == "t1"
    for name, (_, content) in files.items():
        assert (folder / name).read_bytes() == content
    assert "5 rows of 5 requests are in" in run("training-sets", "download", "t1", str(folder))[2]


def test_rank_puts_the_best_first(platform, run, run_json):
    answer = {
        "request_id": "r1",
        "surface": "feed",
        "expert": "feed-ranker@3",
        "foundation_version": "core@7",
        "snapshots": {},
        "served_at": CREATED,
        "scores": [0.25, 0.75],
        "order": [1, 0],
    }
    endpoints = {"registry": "r", "store": "s", "inference": "http://platform.test", "version": "0.1.0"}
    platform.on("GET /v1/endpoints", answers(200, endpoints))
    platform.on("POST /v1/surfaces/feed/rank", answers(200, answer))
    code, out, err = run("rank", "feed", "42", "a", "b")
    assert code == 0
    assert [line.split() for line in out.splitlines()[1:]] == [["1", "b", "0.7500"], ["2", "a", "0.2500"]]
    assert "feed-ranker@3 on core@7" in err
    assert sent(platform)["log"] is False, "a look from the command line is no impression"
    assert run_json("rank", "feed", "42", "a", "b", "--log")["order"] == [1, 0]
    assert sent(platform)["log"] is True


def test_a_job_is_watched_to_its_end(platform, run, run_json):
    done = {**JOB, "state": "succeeded", "progress": [{"stage": "embed", "done": 4, "total": 4}]}
    platform.on("GET /v1/jobs/j1", answers(200, JOB), answers(200, done))
    assert run_json("jobs", "watch", "j1")["state"] == "succeeded"
    assert platform.slept == [0.5]
    code, _, err = run("jobs", "watch", "j1")
    assert code == 0
    assert "Job j1 (embed of core@7/item) succeeded" in err
    platform.on("GET /v1/jobs/j1", answers(200, JOB))
    code, out, err = run("jobs", "watch", "j1", "--timeout", "1")
    assert (code, out) == (6, "")
    assert "goes on by itself" in err


def test_a_job_is_cancelled(platform, run, run_json):
    platform.on("POST /v1/jobs/j1/cancel", answers(200, {**JOB, "state": "cancelled"}))
    assert run_json("jobs", "cancel", "j1")["state"] == "cancelled"
    assert "Job j1 is cancelled" in run("jobs", "cancel", "j1")[2]
