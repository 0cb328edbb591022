"""/healthz, /readyz and /metrics of both services: what a load balancer and Prometheus ask."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import text
from sqlalchemy.exc import OperationalError
from structlog.testing import capture_logs

from bedplate.errors import Unavailable
from bedplate_services import api, inference
from bedplate_services.composition import build_platform
from bedplate_services.metrics import PrometheusMetrics
from bedplate_services.settings import Settings

from .conftest import TestClient

Start = Callable[[str], TestClient]


@pytest.fixture
def start(settings: Settings) -> Iterator[Start]:
    """Start a service by its name, on databases of its own."""
    with ExitStack() as opened:

        def service(name: str) -> TestClient:
            create: Any = {"api": api.create_app, "inference": inference.create_app}[name]
            house = build_platform(settings, service=name, metrics=PrometheusMetrics(name))
            app = create(settings, house)
            client = opened.enter_context(TestClient(app, raise_server_exceptions=False))
            client.house, client.built = house, app  # type: ignore[attr-defined]
            return client

        yield service


def wait_until(seen: Callable[[], bool]) -> None:
    """Threads that do it look ten times a second; pytest's time limit ends the wait for what never comes."""
    while not seen():
        time.sleep(0.01)


SERVICES = pytest.mark.parametrize("service", ["api", "inference"])


def _unavailable(client: TestClient) -> str:
    response = client.get("/readyz")
    problem = response.json()
    assert response.headers["content-type"] == "application/problem+json"
    assert (response.status_code, problem["status"], problem["code"]) == (503, 503, "unavailable")
    assert response.headers["retry-after"] == "1"
    return str(problem["detail"])


@SERVICES
def test_a_living_process_says_so_without_a_token(start: Start, service: str) -> None:
    response = start(service).get("/healthz")
    assert (response.status_code, response.json()) == (200, {"status": "alive"})


def test_what_the_driver_said_is_for_the_log_alone(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    client = start("api")

    def away() -> None:
        raise OperationalError("SELECT", {}, Exception("connection to 10.0.0.1 refused"))

    monkeypatch.setattr(client.house.registry, "check_revision", away)  # type: ignore[attr-defined]
    with capture_logs() as logs:
        assert _unavailable(client) == "The registry database does not answer."
    [told] = [each for each in logs if each["event"] == "not ready"]
    assert "connection to 10.0.0.1 refused" in told["cause"]


def test_the_api_becomes_ready_when_databases_are_migrated_and_what_others_serve_is_open(
    start: Start,
) -> None:
    client = start("api")
    house = client.house  # type: ignore[attr-defined]
    assert house.readers.looked.wait(10)
    for name in ("registry", "store"):
        table = f"{name}_revision"
        database = getattr(house, name)
        with database.engine.begin() as connection:
            connection.execute(text(f"ALTER TABLE {table} RENAME TO away"))
        with capture_logs() as logs:
            assert name in _unavailable(client)
        [told] = [each for each in logs if each["event"] == "not ready"]
        assert (told["log_level"], name in told["reason"]) == ("info", True)
        assert "request failed" not in [each["event"] for each in logs]
        with database.engine.begin() as connection:
            connection.execute(text(f"ALTER TABLE away RENAME TO {table}"))
    house.readers.looked.clear()
    assert "still being opened" in _unavailable(client)
    house.readers.looked.set()
    wait_until(lambda: house.announcer.told)
    response = client.get("/readyz")
    assert (response.status_code, response.json()) == (200, {"status": "ready"})
    assert client.get("/healthz").status_code == 200


def test_a_ready_api_stays_ready_while_a_database_is_away(start: Start) -> None:
    """All replicas would leave the Service at once, and with them the lookups that need no database."""
    client = start("api")
    house = client.house  # type: ignore[attr-defined]
    wait_until(lambda: client.get("/readyz").status_code == 200)
    with house.registry.engine.begin() as connection:
        connection.execute(text("ALTER TABLE registry_revision RENAME TO away"))
    assert client.get("/readyz").status_code == 200


@SERVICES
def test_a_process_told_to_stop_is_not_ready_and_answers_on(start: Start, service: str) -> None:
    client = start(service)
    client.house.draining.begin()  # type: ignore[attr-defined]
    assert "told to stop" in _unavailable(client)
    response = client.get("/healthz")
    assert response.status_code == 200
    assert response.headers["connection"] == "close"


def test_inference_is_ready_once_it_has_read_the_registry(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(_: object) -> None:
        raise Unavailable("The registry is away.")

    with monkeypatch.context() as patched:
        patched.setattr(inference, "read_wanted", away)
        client = start("inference")
        assert "has not been read yet" in _unavailable(client)
        assert client.get("/healthz").status_code == 200
    client.built.serving.keeper.poll()  # type: ignore[attr-defined]
    looked = client.house.readers.looked  # type: ignore[attr-defined]
    assert looked.wait(30)
    looked.clear()
    assert "still being opened" in _unavailable(client)
    looked.set()
    response = client.get("/readyz")
    assert (response.status_code, response.json()) == (200, {"status": "ready"})


@SERVICES
def test_metrics_are_what_prometheus_reads(start: Start, service: str) -> None:
    client = start(service)
    for _ in range(3):
        client.get("/healthz")
    client.get("/v1/no/such/route/of/mine")
    response = client.get("/metrics")
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/plain")
    families = {family.name: family for family in text_string_to_metric_families(response.text)}
    requests = families[f"bedplate_{service}_requests"]
    counted = {
        (sample.labels["method"], sample.labels["route"], sample.labels["status"]): sample.value
        for sample in requests.samples
        if sample.name.endswith("_total")
    }
    assert counted["GET", "/healthz", "200"] == 3
    assert counted["GET", "unmatched", "401"] == 1, "a path nobody serves must not become a label"
    durations = {
        sample.labels["route"]: sample.value
        for sample in families[f"bedplate_{service}_request_seconds"].samples
        if sample.name.endswith("_count")
    }
    assert durations["/healthz"] == 3
