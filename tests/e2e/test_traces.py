"""One trace from a caller's request to the last partition of its job, over real processes; the logs that name
it, and the metrics that count it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from tests.e2e.trace_collector import Collector, Span
from tests.engines.environments import on_servers

from bedplate import Client
from bedplate.errors import VersionNotReady
from bedplate_registry.tokens import ADMIN_TEAM
from bedplate_services.supervisor.platform import Platform

TRACE, CALLER, REQUEST = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331", "request-of-the-test"
PATIENCE_SECONDS = 120.0
EMBED = "POST /v1/spaces/{reference}/{space}/embed"
LOOKUP = "POST /v1/spaces/{reference}/{space}/lookup"
TAE, PASS = "POST /v1/tae", "model pass"
SERVER, CLIENT = 2, 3


@pytest.fixture(scope="module", params=["files", "redis", "rabbitmq"])
def engines(request: pytest.FixtureRequest) -> Iterator[dict[str, str]]:
    """On files the reconciler sends all messages; else the API sends those of a job's first stage."""
    if request.param == "files":
        yield {}
        return
    postgresql, server, s3 = (request.getfixturevalue(name) for name in ("postgresql", request.param, "s3"))
    of_its_own = server.database if request.param == "redis" else server.virtual_host
    with of_its_own() as broker, on_servers(postgresql, s3, broker) as environment:
        yield environment


@pytest.fixture(scope="module")
def traced(
    tmp_path_factory: pytest.TempPathFactory, world: Any, engines: dict[str, str]
) -> Iterator[tuple[Platform, Collector, str]]:
    """A platform whose processes send spans, and a job that was asked for within the caller's trace."""
    with Collector() as collector:
        environment = {
            **engines,
            "BEDPLATE_TRACING": "true",
            "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
            "OTEL_BSP_SCHEDULE_DELAY": "200",
            "BEDPLATE_METRICS_PORT": "0",
        }
        with Platform(tmp_path_factory.mktemp("traced"), environment=environment) as platform:
            with Client(platform.client_url, platform.token) as client:
                world.populate(client)
                answer = httpx.post(
                    f"{platform.url}/v1/spaces/core@1/item/embed",
                    headers=headers(platform),
                    json={"partitions": 3},
                    timeout=60,
                    trust_env=False,
                )
                assert answer.status_code == 202, answer.text
                job = answer.json()["job"]
                client.jobs.watch(job, poll_seconds=0.1, timeout_seconds=PATIENCE_SECONDS)
                client.aliases.move("core", "served", 1, force=True)
                wait_until_served(client, world)
            yield platform, collector, job


def wait_until_served(client: Client, world: Any) -> None:
    """Until the inference service has loaded the model behind the alias."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            client.tae.compute("user-1", "feed", world.keys[:1], versions=["core@1"], log=False)
            return
        except VersionNotReady:
            assert time.monotonic() < deadline
            time.sleep(0.1)


def headers(platform: Platform) -> dict[str, str]:
    """Of a caller who has a trace and a name for the request."""
    return {
        "authorization": f"Bearer {platform.token}",
        "traceparent": f"00-{TRACE}-{CALLER}-01",
        "x-request-id": REQUEST,
    }


def of_the_trace(spans: list[Span]) -> list[Span]:
    return [span for span in spans if span.trace == TRACE]


def work_on(spans: list[Span], job: str) -> list[Span]:
    return [span for span in spans if span.attributes.get("bedplate.job") == job]


def test_the_job_is_done_within_the_trace_of_the_request(traced: Any) -> None:
    _, collector, job = traced

    def whole(spans: list[Span]) -> bool:
        """Each process sends its spans when it likes: the work, who sent it, who asked for it."""
        work, known = work_on(spans, job), {span.id for span in spans}
        published = any(span.attributes["bedplate.stage"] == "publish" for span in work)
        return published and all(span.parent in known for span in work) and EMBED in {s.name for s in spans}

    spans = of_the_trace(collector.wait_for(whole, PATIENCE_SECONDS))
    (request,) = [span for span in spans if span.name == EMBED]
    assert (request.service, request.kind, request.parent) == ("bedplate-api", SERVER, CALLER)
    assert request.attributes["bedplate.request_id"] == REQUEST
    sent = {span.id: span for span in spans if span.name == "apply_async/bedplate.work"}
    assert {span.service for span in sent.values()} <= {"bedplate-reconciler", "bedplate-api"}
    assert {span.parent for span in sent.values()} == {request.id}
    work = work_on(spans, job)
    assert {span.name for span in work} == {"run/bedplate.work"}
    assert {span.service for span in work} == {"bedplate-worker"}
    assert {span.parent for span in work} <= sent.keys()
    embedded = [span for span in work if span.attributes["bedplate.stage"] == "embed"]
    assert sorted(span.attributes["bedplate.partition"] for span in embedded) == [0, 1, 2]
    assert {span.attributes["bedplate.ending"] for span in work} == {"done"}
    assert not any(span.failed for span in work)


def test_queries_are_traced_within_requests_and_messages_alone(traced: Any, engines: dict[str, str]) -> None:
    _, collector, job = traced

    def queried(spans: list[Span]) -> bool:
        parents = {span.id for span in work_on(spans, job)}
        return any(span.kind == CLIENT and span.parent in parents for span in spans)

    spans = collector.wait_for(queried, PATIENCE_SECONDS)
    assert [span for span in spans if span.kind == CLIENT and not span.parent] == []
    if engines:  # what workers fetched and stored is a call over HTTP
        within = {span.id for span in work_on(spans, job)}

        def stored(spans: list[Span]) -> bool:
            return any(span.parent in within and "PUT" in span.name for span in spans)

        collector.wait_for(stored, PATIENCE_SECONDS)


def test_what_the_fast_lane_would_answer_has_a_span_too(traced: Any, world: Any) -> None:
    platform, collector, _ = traced
    with Client(platform.client_url, platform.token) as client:
        for _ in range(2):  # the second one would find everything at hand
            found = client.spaces.lookup("core@1/item", world.keys[:5])
    assert np.all(found.found)
    spans = collector.wait_for(
        lambda spans: sum(span.name == LOOKUP for span in spans) >= 2, PATIENCE_SECONDS
    )
    assert {span.service for span in spans if span.name == LOOKUP} == {"bedplate-api"}


def test_a_ranking_is_traced_through_the_pass_of_the_model_to_its_queries(traced: Any, world: Any) -> None:
    platform, collector, _ = traced
    asked = {"user": "user-7", "surface": "feed", "candidates": world.keys[:5], "versions": ["core@1"]}
    answer = httpx.post(
        f"{platform.inference_url}/v1/tae", headers=headers(platform), json=asked, timeout=60, trust_env=False
    )
    assert answer.status_code == 200, answer.text

    def parts(spans: list[Span]) -> tuple[list[Span], list[Span], list[Span]]:
        requests = [span for span in of_the_trace(spans) if span.name == TAE]
        passes = [span for span in spans if span.parent in {one.id for one in requests} and span.name == PASS]
        return requests, passes, [span for span in spans if span.parent in {one.id for one in passes}]

    spans = collector.wait_for(lambda spans: all(parts(spans)), PATIENCE_SECONDS)
    (request,), (one_pass,), queries = parts(spans)
    assert (request.service, request.kind, request.parent) == ("bedplate-inference", SERVER, CALLER)
    assert request.attributes["bedplate.request_id"] == REQUEST
    assert request.attributes["bedplate.team"] == ADMIN_TEAM
    assert one_pass.attributes["bedplate.requests"] == 1
    assert {span.kind for span in queries} == {CLIENT}


def test_a_pass_for_several_requests_is_linked_to_them_all(traced: Any, world: Any) -> None:
    platform, collector, _ = traced
    url, bearer = f"{platform.inference_url}/v1/tae/batch", {"authorization": f"Bearer {platform.token}"}
    asked = {"surface": "feed", "candidates": world.keys[:5], "versions": ["core@1"], "log": False}

    def ask(number: int) -> int:
        body = {"requests": [{"user": f"user-{number}", **asked}]}
        return httpx.post(url, headers=bearer, json=body, timeout=60, trust_env=False).status_code

    def together(spans: list[Span]) -> list[Span]:
        return [span for span in spans if span.name == PASS and span.attributes["bedplate.requests"] > 1]

    with ThreadPoolExecutor(16) as clients:  # while the model is busy with one, the others wait together
        assert set(clients.map(ask, range(128))) == {200}
    spans = collector.wait_for(lambda spans: bool(together(spans)), PATIENCE_SECONDS)
    requests = {span.id for span in spans if span.name == f"{TAE}/batch"}
    for one in together(spans):
        assert one.parent in requests
        assert len({one.parent, *one.links}) == one.attributes["bedplate.requests"]


def test_the_logs_name_request_team_version_job_and_trace(traced: Any) -> None:
    platform, _, job = traced
    logs: Path = platform.directory.logs
    (asked,) = lines(logs / "api.log", event="job", job=job)
    assert (asked["request_id"], asked["team"], asked["version"]) == (REQUEST, ADMIN_TEAM, "core@1")
    assert asked["trace_id"] == TRACE
    worked = lines(logs / "worker.log", event="worked", job=job)
    assert len(worked) >= 4
    for line in worked:
        assert (line["request_id"], line["team"], line["subject"]) == (REQUEST, "foundation", "core@1/item")
        assert (line["version"], line["space"]) == ("core@1", "item")
        assert line["trace_id"] == TRACE


def test_worker_and_reconciler_can_be_scraped(traced: Any, world: Any) -> None:
    platform, _, _ = traced
    told = {name: scraped(platform.directory.logs / f"{name}.log") for name in ("worker", "reconciler")}
    embed = 'kind="embed",stage="embed"'
    assert f'bedplate_worker_partitions_total{{ending="done",{embed}}} 3.0' in told["worker"]
    assert f"bedplate_worker_rows_total{{{embed}}} {len(world.keys)}.0" in told["worker"]
    assert f"bedplate_worker_partition_seconds_count{{{embed}}} 3.0" in told["worker"]
    assert 'bedplate_reconciler_chores_total{chore="drain the outbox",result="done"}' in told["reconciler"]
    assert 'bedplate_space_snapshot{space="core@1/item"} 1.0' in told["reconciler"]


def scraped(log: Path) -> str:
    """What the process serves at the port that it tells in its log."""
    (line,) = lines(log, event="serving metrics")
    return httpx.get(f"http://{line['host']}:{line['port']}/metrics", trust_env=False).text


def lines(log: Path, **names: str) -> list[dict[str, Any]]:
    """The lines of a log that have these values."""
    read = [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]
    return [line for line in read if names.items() <= line.items()]
