"""Who gets into the inference service, and who may log: 401 and 403 on every route that needs them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest

from bedplate_services.composition import build_platform
from bedplate_services.inference import Inference, create_app
from bedplate_services.metrics import NullMetrics
from bedplate_services.settings import Settings

from .conftest import TestClient, World

OPEN = {"/healthz", "/readyz", "/metrics"}
TAE = {"user": "u1", "surface": "feed", "candidates": ["i1"]}
RANK = {"user": "u1", "candidates": ["i1"]}
LOGGING = [
    ("POST", "/v1/tae", TAE),
    ("POST", "/v1/tae/batch", {"requests": [TAE]}),
    ("POST", "/v1/surfaces/feed/rank", RANK),
]
"""A request of each mutating route, complete but for the right to log on the surface."""


class Asked:
    """The inference service on a world's databases, without a model: who may ask is decided before."""

    def __init__(self, world: World, app: Inference, http: TestClient) -> None:
        self.world, self.app, self.http = world, app, http

    def problem(self, method: str, path: str, team: str | None, document: Any = None) -> dict[str, Any]:
        headers = {"authorization": f"Bearer {self.world.secrets[team]}"} if team else {}
        response = self.http.request(method, path, json=document, headers=headers)
        assert response.headers["content-type"] == "application/problem+json", response.text
        problem: dict[str, Any] = response.json()
        assert problem["status"] == response.status_code
        return problem


@pytest.fixture
def asked(world: World, settings: Settings) -> Iterator[Asked]:
    app = create_app(settings, build_platform(settings, service="test", metrics=NullMetrics()))
    with TestClient(app, raise_server_exceptions=False) as http:
        yield Asked(world, app, http)


def _operations(asked: Asked) -> list[tuple[str, str]]:
    return [(method, path) for path, item in asked.app.http.openapi()["paths"].items() for method in item]


def test_every_route_needs_a_token(asked: Asked) -> None:
    closed = [(method, path) for method, path in _operations(asked) if path not in OPEN]
    assert len(closed) >= 3
    for method, path in closed:
        filled = re.sub(r"\{[^}]+\}", "feed", path)
        for document in (None, TAE):
            problem = asked.problem(method.upper(), filled, None, document)
            assert (problem["status"], problem["code"]) == (401, "unauthenticated"), (method, path)


def test_only_what_is_meant_to_be_open_is_open(asked: Asked) -> None:
    assert {path for _, path in _operations(asked) if not path.startswith("/v1/")} == OPEN


@pytest.mark.parametrize(("method", "path", "document"), LOGGING)
def test_only_the_surfaces_owner_logs(asked: Asked, method: str, path: str, document: Any) -> None:
    problem = asked.problem(method, path, "other-team", document)
    assert (problem["status"], problem["code"]) == (403, "forbidden")
    assert list(asked.app.platform.settings.spool_dir.glob("*")) == []
    owner = asked.problem(method, path, "feed-team", document)
    assert owner["code"] in ("version_not_ready", "not_found"), "let in, and there is no model"


def test_every_mutating_route_is_among_them(asked: Asked) -> None:
    """So that a new route cannot forget to ask who owns what it changes."""
    mutating = {(method, path) for method, path in _operations(asked) if method != "get"}
    tested = {
        (method, template)
        for method, template in mutating
        for verb, path, _ in LOGGING
        if verb.lower() == method and re.fullmatch(re.sub(r"\{[^}]+\}", "[^/]+", template), path)
    }
    assert tested == mutating
