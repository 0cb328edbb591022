"""A store that is replaced under load loses no request: start the new one, wait until it is ready, stop the
old one with the chart's own settings.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
import yaml

from .cluster import PATIENCE_SECONDS, TOKEN, Cluster, Process
from .served_space import DIM, LOOKUP, ROWS, SEARCH, publish
from .service_balancer import ServiceBalancer

LOAD_SECONDS = 2.0
"""Traffic before, between and after."""
PACE_SECONDS = 0.02
"""Between two requests of one client: the machine is to be busy, not choked."""
VALUES = Path(__file__).parents[2] / "helm" / "bedplate" / "values.yaml"


class Load:
    """Clients that never stop and never try again: whatever fails is remembered."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.answers = 0
        self.failures: list[str] = []
        self._stop = threading.Event()
        self._lock = threading.Lock()
        kinds = (self._keep_alive, self._keep_alive, self._new_connections, self._writes)
        self._threads = [threading.Thread(target=self._run, args=(kind,)) for kind in kinds]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(PATIENCE_SECONDS)

    def _run(self, kind: Callable[[], Iterator[httpx.Response]]) -> None:
        answers = kind()
        while not self._stop.wait(PACE_SECONDS):
            try:
                answer = next(answers)
                failure = None if answer.status_code == httpx.codes.OK else answer.text
            except httpx.TransportError as error:
                failure, answers = repr(error), kind()
            with self._lock:
                self.answers += 1
                if failure is not None:
                    self.failures.append(failure)

    def _client(self) -> httpx.Client:
        headers = {"authorization": f"Bearer {TOKEN}"}
        return httpx.Client(base_url=self.url, headers=headers, trust_env=False, timeout=30)

    def _keep_alive(self) -> Iterator[httpx.Response]:
        """Lookups in the fast lane, and searches."""
        keys = np.arange(100, dtype="<i8").tobytes()
        raw = {"content-type": "application/octet-stream", "accept": "application/octet-stream"}
        with self._client() as client:
            while True:
                yield client.post(LOOKUP, content=keys, headers=raw)
                yield client.post(SEARCH, json={"keys": [7], "k": 3})

    def _new_connections(self) -> Iterator[httpx.Response]:
        while True:
            with self._client() as client:
                yield client.post(LOOKUP, json={"keys": [1, 2, 3]})

    def _writes(self) -> Iterator[httpx.Response]:
        with self._client() as client:
            while True:
                row = {"keys": [ROWS + 1], "vectors": [[0.5] * DIM]}
                yield client.post("/v1/spaces/core@1/item/upsert", json=row)


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    made = Cluster(tmp_path)
    made.prepare()
    yield made
    made.close()


def segments_mapped(process: Process) -> bool:
    return "/objects/segments/" in Path(f"/proc/{process.running.pid}/maps").read_text()


def shutdown(component: str) -> dict[str, float]:
    """How the chart stops a pod."""
    values = yaml.safe_load(VALUES.read_text())[component]["shutdown"]
    return {name: float(value) for name, value in values.items()}


@pytest.mark.timeout(900)
@pytest.mark.parametrize("surroundings", ["kubernetes", "health checks alone"])
def test_a_rolling_update_under_load_loses_no_request(cluster: Cluster, surroundings: str) -> None:
    """Kubernetes takes a pod out of the Service when it is deleted, before SIGTERM, and the proxies learn of
    it while preStop sleeps. A balancer of another kind learns it from /readyz alone, after SIGTERM.
    """
    settings = shutdown("api")
    with ServiceBalancer() as balancer:
        drain = {"DRAIN_SECONDS": str(settings["drainSeconds"])}
        old = cluster.start_api("old", balancer.url, **drain)
        old.wait_until_ready()
        with cluster.client(old.url) as client:
            publish(cluster, client)
        at_old = balancer.add(old.url)
        while not at_old.ready:
            time.sleep(PACE_SECONDS)
        with Load(balancer.url) as load:
            time.sleep(LOAD_SECONDS)
            new = cluster.start_api("new", balancer.url, **drain)
            at_new = balancer.add(new.url)
            new.wait_until_ready()
            assert segments_mapped(new), "it is ready when it has mapped what the old one serves"
            while not at_new.ready:
                time.sleep(PACE_SECONDS)
            time.sleep(LOAD_SECONDS)
            if surroundings == "kubernetes":
                balancer.retire(at_old, after_seconds=settings["preStopSeconds"] / 2)
                time.sleep(settings["preStopSeconds"])
            before = load.answers
            status = old.stop(settings["gracePeriodSeconds"] - settings["preStopSeconds"])
            assert load.answers > before
            time.sleep(LOAD_SECONDS)
        assert status == 0, old.log.read_text()[-4000:]
        assert load.failures == []
        assert load.answers > 100
        assert balancer.refused == 0
        assert at_old.taken > 0
        assert at_new.taken > 0
