"""Every error is a problem document that says what would mend it, and tells nothing of the inside."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from fastapi import FastAPI
from sqlalchemy.exc import OperationalError
from starlette.types import Receive, Scope, Send
from structlog.contextvars import merge_contextvars
from structlog.testing import capture_logs

from bedplate.errors import ERRORS_BY_CODE, InternalError, InvalidRequest, NotFound
from bedplate_services import problems
from bedplate_services.edge import BodyLimits, Edge
from bedplate_services.metrics import NullMetrics, PrometheusMetrics

from .conftest import TestClient, World

JSON = {"content-type": "application/json"}


def test_the_table_knows_every_code() -> None:
    assert set(problems.STATUS_BY_CODE) == set(ERRORS_BY_CODE)


def test_a_refined_class_answers_as_the_nearest_known_one() -> None:
    class Refined(InvalidRequest):
        code = "refined"
        title = "Refined"

    document = problems.document(Refined("Mend it.", row=3, status=200, code="x"), "r1")
    assert (document["code"], document["status"], document["row"]) == ("invalid_request", 422, 3)
    assert document["title"] == "Refined"


def test_unknown_route(world: World) -> None:
    assert world.problem("GET", "/v1/nope")["code"] == "not_found"
    assert world.problem("GET", "/nope", None)["code"] == "not_found"


def test_wrong_method(world: World) -> None:
    problem = world.problem("DELETE", "/v1/teams")
    assert (problem["status"], problem["code"]) == (405, "method_not_allowed")
    assert world.problem("GET", "/v1/spaces/core@1/item/lookup")["status"] == 405


def test_bad_json(world: World) -> None:
    problem = world.problem("POST", "/v1/teams", content=b'{"name": ', headers=JSON)
    assert (problem["status"], problem["code"]) == (422, "invalid_request")


def test_validation_names_the_place_but_not_the_input(world: World) -> None:
    document = {"name": "Very Bad Name", "nmae": "typo"}
    problem = world.problem("POST", "/v1/teams", json=document)
    assert problem["code"] == "invalid_request"
    assert {fault["where"] for fault in problem["errors"]} == {"body/name", "body/nmae"}
    assert "Very Bad Name" not in str(problem["errors"])


def test_request_id_is_kept_or_made(world: World) -> None:
    kept = world.call("GET", "/v1/teams", headers={"x-request-id": "mine-1"})
    assert kept.headers["x-request-id"] == "mine-1"
    made = world.call("GET", "/v1/teams", headers={"x-request-id": "no spaces allowed"})
    assert len(made.headers["x-request-id"]) == 32


@pytest.mark.parametrize(
    ("method", "path", "document"),
    [
        ("GET", "/v1/spaces/core@99999999999999999999/item", None),
        ("POST", "/v1/spaces/core@99999999999999999999/item/lookup", {"keys": [1]}),
        ("PUT", "/v1/foundations/core/aliases/production", {"version": 10**30}),
        ("GET", "/v1/foundations/core/versions/99999999999999999999", None),
    ],
)
def test_numbers_beyond_any_column(world: World, method: str, path: str, document: Any) -> None:
    assert world.problem(method, path, json=document)["status"] in (404, 422)


@pytest.fixture
def broken() -> Iterator[TestClient]:
    app = FastAPI()
    problems.install(app)

    @app.get("/defect")
    def defect() -> None:
        raise RuntimeError("password=hunter2")

    @app.get("/database")
    def database() -> None:
        raise OperationalError("SELECT secret", {}, Exception("host=10.0.0.1 is down"))

    @app.get("/damaged")
    def damaged() -> None:
        raise InternalError("A stored object is damaged.")

    @app.get("/deliberate")
    def deliberate() -> None:
        raise NotFound("There is no such thing here.", name="x")

    with TestClient(Edge(app, NullMetrics()), raise_server_exceptions=False) as client:
        yield client


def test_a_defect_leaks_nothing(broken: TestClient) -> None:
    response = broken.get("/defect")
    assert response.status_code == 500
    assert response.json()["code"] == "internal_error"
    assert response.json()["request_id"] == response.headers["x-request-id"]
    assert "hunter2" not in response.text


@pytest.mark.parametrize("path", ["/defect", "/damaged", "/database"])
def test_the_request_id_finds_a_defect_in_the_log(broken: TestClient, path: str) -> None:
    with capture_logs(processors=[merge_contextvars]) as logs:
        response = broken.get(path)
    failed = [entry for entry in logs if entry["event"] == "request failed"]
    assert [entry["request_id"] for entry in failed] == [response.headers["x-request-id"]]
    assert failed[0]["exc_info"] is not None


def test_a_database_that_is_away_is_unavailable(broken: TestClient) -> None:
    response = broken.get("/database")
    assert (response.status_code, response.json()["code"]) == (503, "unavailable")
    assert response.headers["retry-after"] == "1"
    assert "10.0.0.1" not in response.text
    assert "SELECT" not in response.text


def test_context_becomes_members(broken: TestClient) -> None:
    assert broken.get("/deliberate").json()["name"] == "x"


def _edge_over(app: Any, limits: BodyLimits | None = None) -> TestClient:
    return TestClient(Edge(app, NullMetrics(), limits), raise_server_exceptions=False)


async def _read_all(scope: Scope, receive: Receive, send: Send) -> None:
    while (await receive()).get("more_body"):
        pass
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"read"})


@pytest.mark.parametrize("streamed", [False, True])
def test_a_body_over_the_limit_is_refused(streamed: bool) -> None:
    client = _edge_over(_read_all, BodyLimits(json=10, bulk=20, part=5))
    body = iter([b"x" * 8, b"x" * 8]) if streamed else b"x" * 16
    response = client.post("/v1/events", content=body, headers=JSON)
    assert (response.status_code, response.json()["code"]) == (413, "batch_too_large")
    bulk = {"content-type": "application/octet-stream"}
    assert client.post("/v1/events", content=b"x" * 16, headers=bulk).status_code == 200
    part = client.put("/v1/foundations/core/versions/1/files/f/parts/0", content=b"x" * 6, headers=bulk)
    assert part.status_code == 413


def test_a_body_over_the_limit_is_refused_by_a_real_route(world: World) -> None:
    document = b'{"name": "' + b"a" * (17 << 20) + b'"}'
    assert world.problem("POST", "/v1/teams", content=iter([document]), headers=JSON)["status"] == 413


def test_a_compressed_body_is_refused(world: World) -> None:
    headers = {**JSON, "content-encoding": "gzip"}
    assert world.problem("POST", "/v1/teams", content=b"x", headers=headers)["status"] == 415


async def _half_an_answer(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"half", "more_body": True})
    raise InternalError("The other half is gone.")


def test_half_an_answer_breaks_the_connection() -> None:
    client = TestClient(Edge(_half_an_answer, NullMetrics()))
    with pytest.raises(InternalError):
        client.get("/")


def test_metrics_name_route_templates_only(world: World) -> None:
    metrics = PrometheusMetrics("test")
    with TestClient(Edge(world.api.http, metrics), raise_server_exceptions=False) as client:
        client.get("/healthz")
        client.get("/v1/whatever/12345")
        client.get("/readyz")
    text = metrics.render()[0].decode()
    assert 'bedplate_test_requests_total{method="GET",route="/healthz",status="200"} 1.0' in text
    assert 'route="unmatched",status="404"' in text
    assert "12345" not in text
