"""The whole API, on files and on real servers, and the teams that call it."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from safetensors.numpy import save
from tests.integration.places import Ground, Places

from bedplate.codecs import ARROW, encode_upsert_arrow
from bedplate.wire.registry import TeamCreate, TokenCreate
from bedplate_registry import teams, tokens
from bedplate_services.api import Api, create_app
from bedplate_services.composition import Platform, build_platform
from bedplate_services.dispatch import NullDispatcher
from bedplate_services.metrics import NullMetrics
from bedplate_services.settings import Settings
from bedplate_store.impressions import ImpressionLog, ImpressionRecord
from bedplate_store.spaces import SpaceKey
from bedplate_store.times import microseconds

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # starlette would rather have its own fork of httpx
    from starlette.testclient import TestClient

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
TEAMS = ("core-team", "feed-team", "other-team")
WEIGHTS = {"layer.weight": np.ones((3, 4), np.float32), "layer.bias": np.zeros(3, np.float16)}


@dataclass
class TestClock:
    """Time stands still until a test moves it."""

    __test__ = False
    now: datetime = NOW

    def __call__(self) -> datetime:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


def signature(spaces: dict[str, Any] | None = None, architecture: str = "hstu-foundation") -> dict[str, Any]:
    """Of the checkpoint that ``checkpoint_files`` makes."""
    default = {
        "item": {"dim": 4, "dtype": "float32", "entity": "item", "key_type": "int64"},
        "user": {"dim": 4, "dtype": "float16", "entity": "user", "key_type": "string"},
        "tae": {"dim": 4, "dtype": "float16"},
    }
    return {
        "architecture": architecture,
        "spaces": default if spaces is None else spaces,
        "tensors": {
            "layer.weight": {"dtype": "F32", "shape": [3, 4]},
            "layer.bias": {"dtype": "F16", "shape": [3]},
        },
    }


def checkpoint_files(seed: int = 0, announced: dict[str, Any] | None = None) -> dict[str, bytes]:
    """``announced``: the signature it carries; ``signature()`` unless given."""
    said = signature() if announced is None else announced
    return {
        "model.safetensors": save(WEIGHTS),
        "config.json": json.dumps({"architecture": said["architecture"], "seed": seed}).encode(),
        "signature.json": json.dumps(said).encode(),
    }


def manifests(files: dict[str, bytes]) -> list[dict[str, Any]]:
    return [
        {"name": name, "sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data), "parts": 1}
        for name, data in files.items()
    ]


@dataclass
class World:
    """The API with teams core-team (foundation core), feed-team (surface feed) and other-team (nothing)."""

    api: Api
    http: TestClient
    secrets: dict[str, str]
    clock: TestClock = field(default_factory=TestClock)

    @property
    def platform(self) -> Platform:
        return self.api.platform

    def call(
        self,
        method: str,
        path: str,
        team: str | None = "admin",
        headers: dict[str, str] | None = None,
        **more: Any,
    ) -> httpx.Response:
        """A request with a team's token; None: without one."""
        sent = dict(headers or {})
        if team is not None:
            sent["authorization"] = f"Bearer {self.secrets[team]}"
        response: httpx.Response = self.http.request(method, path, headers=sent, **more)
        return response

    def ok(self, method: str, path: str, team: str | None = "admin", **more: Any) -> Any:
        """The JSON answer of a request that must succeed."""
        response = self.call(method, path, team, **more)
        assert response.status_code < 300, response.text
        return response.json()

    def problem(self, method: str, path: str, team: str | None = "admin", **more: Any) -> dict[str, Any]:
        """The problem document of a request that must fail."""
        response = self.call(method, path, team, **more)
        assert response.headers["content-type"] == "application/problem+json", response.text
        problem: dict[str, Any] = response.json()
        assert problem["status"] == response.status_code
        assert problem["type"] == f"urn:bedplate:problem:{problem['code']}"
        assert problem["request_id"] == response.headers["x-request-id"]
        assert problem["detail"]
        return problem

    def fetch(self, url: str, **headers: str) -> httpx.Response:
        """A signed URL, without a token: of this API, or of the object store."""
        base = self.platform.settings.api_base_url
        if url.startswith(base):
            return self.call("GET", url.removeprefix(base), None, headers)
        return httpx.get(url, headers=headers, trust_env=False)

    def draft(self, files: dict[str, bytes] | None = None, **members: Any) -> int:
        document = {"signature": signature(), "files": manifests(files or checkpoint_files()), **members}
        return int(self.ok("POST", "/v1/foundations/core/versions", "core-team", json=document)["version"])

    def upload(self, version: int, files: dict[str, bytes]) -> None:
        for name, data in files.items():
            path = f"/v1/foundations/core/versions/{version}/files/{name}/parts/0"
            self.ok(
                "PUT", path, "core-team", content=data, headers={"content-type": "application/octet-stream"}
            )

    def publish(self, seed: int = 0, **members: Any) -> int:
        """A finalised version of ``core``; its number."""
        files = checkpoint_files(seed)
        version = self.draft(files, **members)
        self.upload(version, files)
        self.ok("POST", f"/v1/foundations/core/versions/{version}/finalise", "core-team")
        return version

    def move(self, alias: str, version: int, expected: int | None = None) -> None:
        document = {"version": version, "expected_version": expected}
        self.ok("PUT", f"/v1/foundations/core/aliases/{alias}", "core-team", json=document)

    def upsert(self, space: str, keys: Any, vectors: Any, *, shown: bool = True) -> dict[str, Any]:
        """The answer to an upsert; with ``shown`` this process sees it, as it would a second later."""
        body = encode_upsert_arrow(keys, vectors)
        headers = {"content-type": ARROW}
        answer: dict[str, Any] = self.ok(
            "POST", f"/v1/spaces/{space}/upsert", "core-team", content=body, headers=headers
        )
        if shown:
            self.show(SpaceKey.parse(answer["reference"]))
        return answer

    def show(self, space: SpaceKey) -> None:
        """Let this process see all writes to a space, and its newest snapshot, at once."""
        self.platform.readers.refresh_now(*space)
        self.platform.readers.open_ahead()
        self.platform.directory.forget()


def log_impressions(world: World) -> None:
    """Spooled, not sealed: what the inference service does."""
    settings = world.platform.settings
    log = ImpressionLog(settings.spool_dir, world.platform.objects, world.platform.store)
    for number in range(3):
        log.append(
            ImpressionRecord(
                request_id=f"r{number}",
                user="u1",
                surface="feed",
                served_at_us=microseconds(NOW) + number,
                items=["i1", "i2"],
                expert=None,
                scores=None,
                tae={"core@1": np.full((2, 4), number, np.float16)},
                predictions={"core@1": np.zeros(2, np.float32)},
            )
        )
    log.close()


def make_settings(folder: Path, places: Places) -> Settings:
    return Settings(
        registry_database_url=places.registry_url,
        store_database_url=places.store_url,
        objects_url=places.objects.url,
        **{f"s3_{name}": value for name, value in places.objects.keys.items()},
        cache_dir=folder / "cache",
        spool_dir=folder / "spool",
        signing_key="only-for-tests",
        local_paths=True,
    )


@pytest.fixture
def settings(tmp_path: Path, places: Places) -> Settings:
    return make_settings(tmp_path, places)


def _serve(settings: Settings) -> Iterator[World]:
    clock = TestClock()
    platform = build_platform(
        settings, service="test", metrics=NullMetrics(), dispatcher=NullDispatcher(), now=clock
    )
    secrets = _secrets(platform)
    api = create_app(settings, platform)
    with TestClient(api, raise_server_exceptions=False) as http:
        world = World(api, http, secrets, clock)
        world.ok("POST", "/v1/foundations", "core-team", json={"name": "core", "team": "core-team"})
        world.ok("POST", "/v1/surfaces", "feed-team", json={"name": "feed", "team": "feed-team"})
        yield world


def _secrets(platform: Platform) -> dict[str, str]:
    """A member's token of each team, and an admin's."""
    with platform.registry.write() as session:
        found = {"admin": tokens.bootstrap_admin(session, NOW).secret}
        for team in TEAMS:
            teams.create(session, TeamCreate(name=team), NOW)
            found[team] = tokens.issue(session, team, TokenCreate(), NOW).secret
    return found


@pytest.fixture
def world(settings: Settings) -> Iterator[World]:
    yield from _serve(settings)


@pytest.fixture(scope="module")
def shared_world(tmp_path_factory: pytest.TempPathFactory, ground: Ground) -> Iterator[World]:
    """One for a whole module of tests that change nothing."""
    folder = tmp_path_factory.mktemp("shared")
    with ground.places(folder) as places:
        yield from _serve(make_settings(folder, places))
