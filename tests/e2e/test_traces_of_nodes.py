"""One trace from a caller to the store nodes that answer; what the log says of one that does not."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
import pytest
from tests.waiting import wait_until

from .cluster import PATIENCE_SECONDS, TOKEN, Cluster, Process
from .test_rolling_nodes import NODES, SHARDS, SPACE, VECTORS, publish, start_node
from .trace_collector import Collector, Span

TRACE, CALLER, REQUEST = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331", "request-of-the-test"
LOOKUP, AT_THE_NODE = "POST /v1/spaces/{reference}/{space}/lookup", "POST /internal/shards/lookup"
SERVER, CLIENT = 2, 3
DEADLINE_SECONDS = "2"


@dataclass
class Served:
    api: Process
    nodes: dict[str, Process]
    collector: Collector

    def look_up(self, request_id: str = REQUEST) -> httpx.Response:
        """Keys of all shards, raw: what the fast lane would answer."""
        raw = "application/octet-stream"
        return httpx.post(
            f"{self.api.url}/v1/spaces/{SPACE}/lookup",
            content=np.arange(0, len(VECTORS), 50, dtype="<i8").tobytes(),
            headers={
                "authorization": f"Bearer {TOKEN}",
                "content-type": raw,
                "accept": raw,
                "traceparent": f"00-{TRACE}-{CALLER}-01",
                "x-request-id": request_id,
            },
            timeout=60,
            trust_env=False,
        )


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    with Collector() as collector:
        cluster = Cluster(
            tmp_path,
            environment={
                "BEDPLATE_TRACING": "true",
                "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
                "OTEL_BSP_SCHEDULE_DELAY": "200",
            },
        )
        try:
            cluster.prepare()
            publish(cluster)
            nodes = {name: start_node(cluster, name, name, 0.0) for name in NODES}
            api = cluster.start_api("api", SHARD_SECRET="shared", SHARD_DEADLINE_SECONDS=DEADLINE_SECONDS)
            for process in (*nodes.values(), api):
                process.wait_until_ready()
            running = Served(api, nodes, collector)
            whole = f"{SHARDS}/{SHARDS}"
            wait_until(
                lambda: running.look_up("before").headers.get("x-bedplate-shards") == whole,
                api.log.read_text,
            )
            yield running
        finally:
            cluster.close()


def calls_of(spans: list[Span], request: str) -> tuple[list[Span], list[Span], list[Span]]:
    """The spans of a request at the API, of its calls, and of the nodes that were called."""
    asked = [
        span for span in spans if span.name == LOOKUP and span.attributes["bedplate.request_id"] == request
    ]
    calls = [span for span in spans if span.parent in {one.id for one in asked} and span.name == AT_THE_NODE]
    return asked, calls, [span for span in spans if span.parent in {one.id for one in calls}]


def test_a_look_up_is_traced_through_the_api_to_every_node(served: Served) -> None:
    assert served.look_up().status_code == 200

    def whole(spans: list[Span]) -> bool:
        asked, _, answered = calls_of(spans, REQUEST)
        return len(asked) == 1 and len(answered) == len(NODES)

    asked, calls, answered = calls_of(served.collector.wait_for(whole, PATIENCE_SECONDS), REQUEST)
    assert (asked[0].service, asked[0].kind, asked[0].parent) == ("bedplate-api", SERVER, CALLER)
    assert {(span.service, span.kind, span.failed) for span in calls} == {("bedplate-api", CLIENT, False)}
    assert {span.attributes["http.response.status_code"] for span in calls} == {200}
    ports = {int(node.url.rpartition(":")[2]) for node in served.nodes.values()}
    assert {span.attributes["server.port"] for span in calls} == ports
    assert {(span.name, span.service, span.kind) for span in answered} == {
        (AT_THE_NODE, "bedplate-store-node", SERVER)
    }
    assert {span.attributes["bedplate.request_id"] for span in answered} == {REQUEST}
    assert {span.trace for span in (*asked, *calls, *answered)} == {TRACE}


def test_a_node_that_does_not_answer_is_in_the_trace_and_in_the_log(served: Served) -> None:
    silent = served.nodes[NODES[1]]
    os.kill(silent.running.pid, signal.SIGSTOP)
    try:
        assert served.look_up("left-alone").status_code == 503
    finally:
        os.kill(silent.running.pid, signal.SIGCONT)
    failed = failed_calls("left-alone")
    (call,) = failed(served.collector.wait_for(lambda spans: bool(failed(spans)), PATIENCE_SECONDS))
    assert call.attributes["server.port"] == int(silent.url.rpartition(":")[2])
    (line,) = lines(served.api.log, event="store node did not answer in time", request_id="left-alone")
    assert line["url"] == silent.url
    assert line["trace_id"] == TRACE


def failed_calls(request: str) -> Callable[[list[Span]], list[Span]]:
    return lambda spans: [span for span in calls_of(spans, request)[1] if span.failed]


def lines(log: Path, **names: str) -> list[dict[str, str]]:
    """The lines of a log that have these values."""
    read = [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]
    return [line for line in read if names.items() <= line.items()]
