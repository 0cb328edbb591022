"""Tracing that is off loads nothing and leaves the fast lane where it is. In processes of their own: what one
test loads, another one sees.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

LOADED = "sorted(name for name in sys.modules if name.split('.')[0] == 'opentelemetry')"
API = f"""
import json, sys
from starlette.testclient import TestClient
from bedplate_services.api import create_app
from bedplate_services.composition import migrate
from bedplate_services.lane.protocol import STATE
from bedplate_services.settings import Settings
from bedplate_services.tracing import traced

settings = Settings()
migrate(settings)
app = create_app(settings)
served = traced(app, app.platform.tracing)
with TestClient(served) as client:
    lane = client.app_state.get(STATE)
    status = client.get("/v1/whoami").status_code
print(json.dumps({{"loaded": {LOADED}, "same": served is app, "lane": lane is app.lane, "status": status}}))
"""
INFERENCE_AND_NODE = f"""
import json, sys
from bedplate_services import inference
from bedplate_services.composition import migrate
from bedplate_services.settings import Settings
from bedplate_services.shards import node
from bedplate_services.tracing import traced
from bedplate_store.tracing import start_tracing

settings = Settings()
migrate(settings)
app = inference.create_app(settings)
store_node = node.create_app(settings)
same = [
    traced(app, app.platform.tracing) is app,
    traced(store_node, start_tracing(settings.tracing, "store-node")) is store_node,
]
print(json.dumps({{"loaded": {LOADED}, "same": same}}))
"""
WORKERS = f"""
import json, sys
import bedplate_workers.__main__, bedplate_workers.reconciler, bedplate_workers.sealer
from bedplate_store.tracing import UNTRACED, start_tracing
assert start_tracing(False, "worker") is UNTRACED
print(json.dumps({{"loaded": {LOADED}}}))
"""


def run(code: str, folder: Path, **more: str) -> Any:
    own = {
        "BEDPLATE_REGISTRY_DATABASE_URL": f"sqlite:///{folder / 'registry.db'}",
        "BEDPLATE_STORE_DATABASE_URL": f"sqlite:///{folder / 'store.db'}",
        "BEDPLATE_OBJECTS_URL": f"file://{folder / 'objects'}",
        "BEDPLATE_CACHE_DIR": str(folder / "cache"),
        "BEDPLATE_SPOOL_DIR": str(folder / "spool"),
        "OTEL_TRACES_EXPORTER": "none",
    }
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **own, **more}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def beyond_the_api(modules: list[str]) -> list[str]:
    """What is loaded besides OpenTelemetry's interfaces, which FastAPI imports by itself and which do nothing
    without the rest."""
    return [name for name in modules if name.split(".")[1:2] in (["sdk"], ["exporter"], ["instrumentation"])]


def test_the_api_loads_no_tracing_and_serves_through_the_fast_lane(tmp_path: Path) -> None:
    told = run(API, tmp_path)
    assert beyond_the_api(told["loaded"]) == []
    assert told["same"], "the application is served as it is, without a layer around it"
    assert told["lane"], "the server finds the lane"
    assert told["status"] == 401


def test_with_tracing_on_there_is_a_layer_and_no_lane(tmp_path: Path) -> None:
    told = run(API, tmp_path, BEDPLATE_TRACING="true")
    assert "opentelemetry.instrumentation.asgi" in beyond_the_api(told["loaded"])
    assert not told["same"]
    assert not told["lane"]
    assert told["status"] == 401


def test_inference_service_and_store_node_load_no_tracing_and_are_served_as_they_are(tmp_path: Path) -> None:
    told = run(INFERENCE_AND_NODE, tmp_path, BEDPLATE_STORE_NODE="node-1", BEDPLATE_SHARD_SECRET="secret")
    assert beyond_the_api(told["loaded"]) == []
    assert told["same"] == [True, True]


def test_workers_reconciler_and_sealer_load_nothing_of_opentelemetry(tmp_path: Path) -> None:
    assert run(WORKERS, tmp_path)["loaded"] == []


@pytest.mark.parametrize("exporter", ["jaeger", "otlp,zipkin"])
def test_an_exporter_nobody_knows_is_told(exporter: str, tmp_path: Path) -> None:
    code = "from bedplate_store.tracing import start_tracing; start_tracing(True, 'api')"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "OTEL_TRACES_EXPORTER": exporter},
        capture_output=True,
        text=True,
    )
    assert f"OTEL_TRACES_EXPORTER={exporter.split(',')[-1]} is not known here" in done.stderr
