from __future__ import annotations

import asyncio
import hashlib
import json
from datetime import UTC, datetime

import httpx
import pytest

from bedplate.client import checkpoints
from bedplate.errors import CheckpointInvalid, DigestMismatch, InvalidRequest, Unavailable

from .conftest import CREATED, problem

PART = 1000
WEIGHTS = bytes(range(256)) * 10
SIGNATURE = {
    "architecture": "hstu",
    "inputs": {},
    "tasks": ["label"],
    "spaces": {},
    "tensors": {"w": {"dtype": "F32", "shape": [640]}},
}
BASE = "/v1/foundations/core/versions"


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    monkeypatch.setattr(checkpoints, "PART_BYTES", PART)


@pytest.fixture
def directory(tmp_path):
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(WEIGHTS)
    (folder / "config.json").write_text("{}")
    (folder / "notes.txt").write_text("")
    (folder / ".hidden").write_text("left out")
    (folder / "signature.json").write_text(json.dumps(SIGNATURE))
    return folder


class Registry:
    """Keeps drafts and parts as the registry does, as far as a publisher can see it."""

    def __init__(self, platform, kind="foundations", name="core"):
        self.platform = platform
        self.base = f"/v1/{kind}/{name}/versions"
        self.named = {"foundation": "core"} if kind == "foundations" else {"expert": name, "surface": "feed"}
        self.drafts: list[dict] = []
        self.parts: dict[tuple[str, int], bytes] = {}
        platform.on(f"GET {self.base}", self.list)
        platform.on(f"POST {self.base}", self.create)

    def document(self, body, number, state="draft"):
        made = {
            **body,
            **self.named,
            "version": number,
            "state": state,
            "digest": None,
            "created_at": CREATED,
        }
        return made | ({"reference": f"core@{number}"} if "foundation" in self.named else {})

    def list(self, _request):
        return httpx.Response(200, json={"items": self.drafts, "next": None})

    def create(self, request):
        body = json.loads(request.content)
        number = len(self.drafts) + 1
        self.drafts.append(self.document(body, number))
        at = f"{self.base}/{number}"
        for file in body["files"]:
            for part in range(file["parts"]):
                self.platform.on(f"PUT {at}/files/{file['name']}/parts/{part}", self.receive)
        self.platform.on(f"GET {at}/upload", self.status)
        self.platform.on(f"POST {at}/finalise", self.finalise)
        return httpx.Response(201, json=self.drafts[-1])

    def receive(self, request):
        _, file, _, part = request.url.path.rsplit("/", 3)
        self.parts[file, int(part)] = request.content
        return self.status(request)

    def status(self, _request):
        received: dict[str, list[int]] = {}
        for file, part in self.parts:
            received.setdefault(file, []).append(part)
        return httpx.Response(200, json={"received": received})

    def finalise(self, _request):
        self.drafts[-1]["state"] = "ready"
        return httpx.Response(200, json=self.drafts[-1])

    def joined(self, file):
        return b"".join(self.parts[key] for key in sorted(self.parts) if key[0] == file)


def test_a_directory_is_published_in_parts(platform, client, directory):
    registry = Registry(platform)
    seen = []
    start, end = datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 2, 1, tzinfo=UTC)
    version = client.versions.publish(
        "core",
        directory,
        parent=1,
        training_window=(start, end),
        metrics={"ne": 0.87},
        progress=lambda *counts: seen.append(counts),
    )
    assert version.state == "ready"
    assert registry.joined("model.safetensors") == WEIGHTS
    assert {file for file, _ in registry.parts} == {
        "model.safetensors",
        "config.json",
        "notes.txt",
        "signature.json",
    }
    files = {file.name: file for file in version.files}
    assert files["model.safetensors"].sha256 == hashlib.sha256(WEIGHTS).hexdigest()
    assert (files["model.safetensors"].parts, files["notes.txt"].parts) == (3, 1)
    assert (version.parent, version.training_window_end) == (1, end)
    assert seen[-1][1] == seen[-1][2] == sum(file.bytes for file in version.files)


def test_an_interrupted_publication_goes_on_where_it_stopped(platform, client, directory):
    registry = Registry(platform)
    third = f"PUT {BASE}/1/files/model.safetensors/parts/2"
    create = registry.create

    def create_then_break(request):
        answer = create(request)
        platform.on(third, httpx.ReadError("reset"))
        return answer

    platform.on(f"POST {BASE}", create_then_break)
    with pytest.raises(Unavailable):
        client.versions.publish("core", directory, metrics={"ne": 0.5})
    before = len(registry.parts)
    platform.requests.clear()
    platform.on(third, registry.receive)
    assert client.versions.publish("core", directory, metrics={"ne": 0.5}).version == 1
    assert f"POST {BASE}" not in platform.paths()
    assert sum(path.startswith("PUT") for path in platform.paths()) == len(registry.parts) - before
    assert registry.joined("model.safetensors") == WEIGHTS


@pytest.mark.parametrize("change", ["weights", "parent"])
def test_a_changed_checkpoint_is_another_draft(platform, client, directory, change):
    registry = Registry(platform)
    platform.on(f"POST {BASE}", lambda request: registry.create(request))
    finalise = registry.finalise
    registry.finalise = lambda _request: problem(422, "digest_mismatch", "wrong")
    with pytest.raises(DigestMismatch):
        client.versions.publish("core", directory)
    registry.finalise = finalise
    if change == "weights":
        (directory / "model.safetensors").write_bytes(WEIGHTS[:-1])
    version = client.versions.publish("core", directory, parent=1 if change == "parent" else None)
    assert version.version == 2


def test_an_expert_is_published_the_same_way(platform, client, directory):
    registry = Registry(platform, "experts", "feed-ranker")
    version = client.experts.publish(
        "feed-ranker", directory, pinned_version="core@7", pinned_space="tae", training_set="t1"
    )
    assert (version.state, version.pinned_version, version.training_set) == ("ready", "core@7", "t1")
    assert registry.joined("model.safetensors") == WEIGHTS


def test_the_asynchronous_client_publishes_too(platform, directory):
    registry = Registry(platform)

    async def publish():
        async with platform.async_client() as client:
            return await client.versions.publish("core", directory)

    assert asyncio.run(publish()).state == "ready"
    assert registry.joined("model.safetensors") == WEIGHTS


@pytest.mark.parametrize(
    ("damage", "match"),
    [
        (lambda folder: (folder / "signature.json").unlink(), "signature.json is missing"),
        (lambda folder: (folder / "signature.json").write_text("{}"), "architecture: Field required"),
        (lambda folder: (folder / "deeper").mkdir(), "deeper cannot be part"),
        (lambda folder: (folder / "a b.json").write_text("{}"), "a b.json cannot be part"),
    ],
)
def test_a_bad_directory_is_refused_before_anything_is_sent(platform, client, directory, damage, match):
    damage(directory)
    with pytest.raises(CheckpointInvalid, match=match):
        client.versions.publish("core", directory)
    assert platform.requests == []


def test_a_directory_that_is_not_there(client, tmp_path):
    with pytest.raises(CheckpointInvalid, match="not a directory"):
        client.versions.publish("core", tmp_path / "nowhere")


def stored(platform, directory):
    """Publish the directory on a fake registry that then serves its files."""
    registry = Registry(platform)
    with platform.client() as client:
        version = client.versions.publish("core", directory)
    platform.on(f"GET {BASE}/production", httpx.Response(200, json=registry.drafts[0]))
    for file in version.files:
        content = (directory / file.name).read_bytes()
        platform.on(f"GET {BASE}/1/files/{file.name}", httpx.Response(200, content=content))
    return version


def test_a_download_is_the_directory_again(platform, client, directory, tmp_path):
    stored(platform, directory)
    seen = []
    target = tmp_path / "copy"
    client.versions.download("core@production", target, progress=lambda *counts: seen.append(counts))
    for file in ("model.safetensors", "config.json", "signature.json", "notes.txt"):
        assert (target / file).read_bytes() == (directory / file).read_bytes()
    assert seen[-1][1] == seen[-1][2]
    assert [done for _, done, _ in seen] == sorted(done for _, done, _ in seen)
    platform.requests.clear()
    client.versions.download("core@production", target)
    assert platform.paths() == [f"GET {BASE}/production"]


def test_damaged_bytes_never_appear_under_their_name(platform, client, directory, tmp_path):
    stored(platform, directory)
    url = f"GET {BASE}/1/files/model.safetensors"
    platform.on(url, httpx.Response(200, content=WEIGHTS[:-1] + b"x"))
    with pytest.raises(DigestMismatch, match=r"model\.safetensors came with"):
        client.versions.download("core@production", tmp_path / "copy")
    assert "model.safetensors" not in [file.name for file in (tmp_path / "copy").iterdir()]
    # Of the other files, which the error ended in the middle, what has come may stay for the next time.
    assert not list((tmp_path / "copy").glob(".model.safetensors*"))


def test_a_broken_download_begins_again(platform, client, directory, tmp_path):
    stored(platform, directory)
    url = f"GET {BASE}/1/files/model.safetensors"
    platform.on(url, httpx.ReadError("reset"), httpx.Response(200, content=WEIGHTS))
    client.versions.download("core@production", tmp_path / "copy")
    assert (tmp_path / "copy" / "model.safetensors").read_bytes() == WEIGHTS


def test_the_asynchronous_client_downloads_too(platform, directory, tmp_path):
    stored(platform, directory)

    async def download():
        async with platform.async_client() as client:
            await client.versions.download("core@production", tmp_path / "copy")

    asyncio.run(download())
    assert (tmp_path / "copy" / "model.safetensors").read_bytes() == WEIGHTS


def test_experts_have_no_aliases(client):
    with pytest.raises(InvalidRequest, match="version number"):
        client.experts.get_version("feed-ranker@production")
