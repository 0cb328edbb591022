"""The registry over REST: uploads, aliases, experts, evaluations; bad input leaves nothing behind."""

from __future__ import annotations

from typing import Any

import pytest

from bedplate.codecs import RAW

from .conftest import World, checkpoint_files, manifests, signature

VERSIONS = "/v1/foundations/core/versions"
OCTETS = {"content-type": RAW}


def _part(world: World, version: int, name: str, data: bytes) -> Any:
    path = f"{VERSIONS}/{version}/files/{name}/parts/0"
    return world.call("PUT", path, "core-team", content=data, headers=OCTETS)


def test_a_version_is_published_and_downloaded(world: World) -> None:
    files = checkpoint_files()
    version = world.draft(files)
    world.upload(version, files)
    ready = world.ok("POST", f"{VERSIONS}/{version}/finalise", "core-team")
    assert (ready["state"], ready["reference"]) == ("ready", "core@1")
    for manifest in manifests(files):
        response = world.call("GET", f"{VERSIONS}/1/files/{manifest['name']}")
        assert response.content == files[manifest["name"]]
        assert response.headers["etag"] == f'"{manifest["sha256"]}"'
        assert int(response.headers["content-length"]) == manifest["bytes"]


def test_finalising_makes_the_spaces(world: World) -> None:
    world.publish()
    spaces = world.ok("GET", "/v1/spaces", params={"foundation": "core"})["items"]
    assert [space["reference"] for space in spaces] == ["core@1/item", "core@1/tae", "core@1/user"]
    assert all(space["snapshot"] is None for space in spaces)


def test_a_crash_before_the_spaces_are_made_mends_itself(world: World) -> None:
    from bedplate_registry import versions

    files = checkpoint_files()
    version = world.draft(files)
    world.upload(version, files)
    house = world.platform
    versions.finalise(
        house.registry, house.objects, "core", version, house.now(), house.foundation_checkpoints
    )
    assert world.ok("GET", "/v1/spaces")["items"] == []
    assert world.ok("GET", "/v1/spaces/core@1/item")["dim"] == 4


def test_a_wrong_digest_leaves_a_draft_that_can_be_mended(world: World) -> None:
    files = checkpoint_files()
    version = world.draft(files)
    damaged = {**files, "config.json": files["config.json"].replace(b"0", b"9")}
    world.upload(version, damaged)
    problem = world.problem("POST", f"{VERSIONS}/{version}/finalise", "core-team")
    assert (problem["status"], problem["code"]) == (422, "digest_mismatch")
    assert "config.json" in problem["detail"]
    assert world.ok("GET", f"{VERSIONS}/{version}")["state"] == "draft"
    assert world.ok("GET", "/v1/spaces")["items"] == []
    world.upload(version, files)
    assert world.ok("POST", f"{VERSIONS}/{version}/finalise", "core-team")["state"] == "ready"


def test_a_wrong_signature_leaves_a_draft(world: World) -> None:
    files = checkpoint_files()
    wrong = signature()
    wrong["tensors"]["layer.bias"]["shape"] = [4]
    document = {"signature": wrong, "files": manifests(files)}
    version = world.ok("POST", VERSIONS, "core-team", json=document)["version"]
    world.upload(version, files)
    problem = world.problem("POST", f"{VERSIONS}/{version}/finalise", "core-team")
    assert (problem["status"], problem["code"]) == (422, "signature_mismatch")
    assert world.ok("GET", f"{VERSIONS}/{version}")["state"] == "draft"
    mended = {**document, "signature": signature()}
    world.ok("PUT", f"{VERSIONS}/{version}", "core-team", json=mended)
    assert world.ok("POST", f"{VERSIONS}/{version}/finalise", "core-team")["state"] == "ready"


@pytest.mark.parametrize("name", ["weights.pkl", "README.md", "extra.json", "more.safetensors"])
def test_files_no_checkpoint_has_are_refused(world: World, name: str) -> None:
    files = {**checkpoint_files(), name: b"\x80\x04."}
    document = {"signature": signature(), "files": manifests(files)}
    problem = world.problem("POST", VERSIONS, "core-team", json=document)
    assert (problem["status"], problem["code"]) == (422, "checkpoint_invalid")
    assert world.ok("GET", VERSIONS)["items"] == []


def test_a_checkpoint_without_its_signature_file_is_refused(world: World) -> None:
    files = checkpoint_files()
    del files["signature.json"]
    document = {"signature": signature(), "files": manifests(files)}
    problem = world.problem("POST", VERSIONS, "core-team", json=document)
    assert (problem["status"], problem["code"]) == (422, "checkpoint_invalid")
    assert "signature.json: missing" in problem["detail"]
    assert world.ok("GET", VERSIONS)["items"] == []


@pytest.mark.parametrize(
    ("base", "team", "architecture", "accepted"),
    [
        (VERSIONS, "core-team", "made-up", "hstu-foundation"),
        (VERSIONS, "core-team", "fm-expert", "hstu-foundation"),
        ("/v1/experts/ranker/versions", "feed-team", "made-up", "fm-expert"),
        ("/v1/experts/ranker/versions", "feed-team", "hstu-foundation", "fm-expert"),
    ],
)
def test_only_architectures_the_platform_loads_are_accepted(
    world: World, base: str, team: str, architecture: str, accepted: str
) -> None:
    world.ok("POST", "/v1/experts", "feed-team", json={"name": "ranker", "surface": "feed"})
    announced = signature({}, architecture)
    document = {"signature": announced, "files": manifests(checkpoint_files(0, announced))}
    problem = world.problem("POST", base, team, json=document)
    assert (problem["status"], problem["code"]) == (422, "checkpoint_invalid")
    assert f"accepted is {accepted}" in problem["detail"]
    assert world.ok("GET", base)["items"] == []
    assert list(world.platform.objects.list("")) == []
    good = signature({}, accepted)
    files = checkpoint_files(0, good)
    draft = {"signature": good, "files": manifests(files)}
    world.ok("POST", base, team, json=draft)
    assert world.problem("PUT", f"{base}/1", team, json=document)["code"] == "checkpoint_invalid"
    assert world.ok("GET", f"{base}/1")["signature"]["architecture"] == accepted


def test_a_finalised_version_is_immutable(world: World) -> None:
    version = world.publish()
    assert _part(world, version, "config.json", b"{}").json()["code"] == "version_immutable"
    problem = world.problem("POST", f"{VERSIONS}/{version}/finalise", "core-team")
    assert (problem["status"], problem["code"]) == (409, "version_immutable")


def test_uploads_need_octets_and_known_files(world: World) -> None:
    version = world.draft()
    path = f"{VERSIONS}/{version}/files/config.json/parts/0"
    headers = {"content-type": "text/plain"}
    assert world.problem("PUT", path, "core-team", content=b"x", headers=headers)["status"] == 415
    assert _part(world, version, "unknown.json", b"x").status_code == 404
    assert _part(world, version, "config.json", b"x" * 10_000).json()["code"] == "digest_mismatch"


def test_unknown_foundation_version_and_alias(world: World) -> None:
    for path in ("/v1/foundations/nope", f"{VERSIONS}/7", f"{VERSIONS}/production", "/v1/experts/nope"):
        assert world.problem("GET", path)["code"] == "not_found", path
    assert world.problem("POST", "/v1/foundations/nope/versions", json=None)["status"] == 404
    assert world.problem("GET", f"{VERSIONS}/Bad%20Name")["status"] == 422


def test_an_alias_moved_meanwhile(world: World) -> None:
    first, second = world.publish(0), world.publish(1)
    world.move("production", first)
    world.move("production", second, expected=first)
    problem = world.problem(
        "PUT",
        "/v1/foundations/core/aliases/production",
        "core-team",
        json={"version": first, "expected_version": first},
    )
    assert (problem["status"], problem["code"], problem["current_version"]) == (412, "alias_moved", second)
    assert world.ok("GET", "/v1/foundations/core/aliases/production")["version"] == second
    history = world.ok("GET", "/v1/foundations/core/aliases/production/history")["items"]
    assert [(one["from_version"], one["to_version"]) for one in history] == [(first, second), (None, first)]
    assert history[0]["moved_by"].startswith("core-team")
    assert world.ok("GET", f"{VERSIONS}/production")["version"] == second


def test_an_alias_needs_a_finalised_version(world: World) -> None:
    version = world.draft()
    path = "/v1/foundations/core/aliases/production"
    problem = world.problem("PUT", path, "core-team", json={"version": version})
    assert (problem["status"], problem["code"]) == (409, "version_not_ready")
    assert world.problem("GET", path)["status"] == 404


def test_a_version_in_use_is_not_retired(world: World) -> None:
    version = world.publish()
    world.move("production", version)
    problem = world.problem("POST", f"{VERSIONS}/{version}/retire", "core-team")
    assert (problem["status"], problem["code"]) == (409, "conflict")
    assert world.ok("GET", f"{VERSIONS}/{version}")["state"] == "ready"


def test_names_are_taken_once(world: World) -> None:
    problem = world.problem("POST", "/v1/surfaces", "feed-team", json={"name": "feed", "team": "feed-team"})
    assert (problem["status"], problem["code"]) == (409, "already_exists")


def test_an_expert_serves(world: World) -> None:
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
    base = "/v1/experts/ranker/versions"
    made = world.ok("POST", base, "feed-team", json=document)
    for name, data in files.items():
        path = f"{base}/1/files/{name}/parts/0"
        world.ok("PUT", path, "feed-team", content=data, headers=OCTETS)
    not_ready = world.problem("PUT", "/v1/experts/ranker/serving", "feed-team", json={"version": 1})
    assert not_ready["code"] == "version_not_ready"
    world.ok("POST", f"{base}/{made['version']}/finalise", "feed-team")
    served = world.ok("PUT", "/v1/experts/ranker/serving", "feed-team", json={"version": 1})
    assert served["serving_version"] == 1
    moved = world.problem("PUT", "/v1/experts/ranker/serving", "feed-team", json={"version": 1})
    assert (moved["status"], moved["code"]) == (412, "alias_moved")
    assert world.call("GET", f"{base}/1/files/config.json").content == files["config.json"]
    assert world.ok("GET", "/v1/experts", params={"surface": "feed"})["items"][0]["name"] == "ranker"


def test_evaluations_and_transfer_ratio(world: World) -> None:
    world.publish()
    window = {"window_start": "2026-02-01T00:00:00Z", "window_end": "2026-03-01T00:00:00Z"}
    document = {"subject": "core@1", "surface": "feed", **window, "rows": 10, "metrics": {"ne": 0.9}}
    assert world.ok("POST", "/v1/evaluations", "core-team", json=document)["team"] == "core-team"
    assert world.ok("POST", "/v1/evaluations", "feed-team", json=document)["team"] == "feed-team"
    assert len(world.ok("GET", "/v1/evaluations", params={"subject": "core@1"})["items"]) == 2
    params = {"surface": "feed", "from": "core@1", "to": "core@1"}
    assert world.problem("GET", "/v1/transfer-ratio", params=params)["status"] == 404


@pytest.mark.parametrize("metrics", [{}, {"ne": None}, {"ne": "low"}])
def test_a_bad_evaluation_is_not_recorded(world: World, metrics: dict[str, Any]) -> None:
    world.publish()
    window = {"window_start": "2026-03-01T00:00:00Z", "window_end": "2026-02-01T00:00:00Z"}
    document = {"subject": "core@1", "surface": "feed", **window, "rows": 10, "metrics": metrics}
    assert world.problem("POST", "/v1/evaluations", "core-team", json=document)["status"] == 422
    assert world.ok("GET", "/v1/evaluations")["items"] == []
