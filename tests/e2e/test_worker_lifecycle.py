"""Workers as Kubernetes treats them: probed by their heartbeat, told to stop in the middle of a job."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.waiting import wait_until

from .cluster import PATIENCE_SECONDS, Cluster, Process

MAX_AGE_SECONDS = "5"


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    made = Cluster(tmp_path)
    made.prepare()
    yield made
    made.close()


def alive(cluster: Cluster, name: str) -> bool:
    """As the probe of the chart asks."""
    probe = [sys.executable, "-m", "bedplate_workers.alive", "--max-age-seconds", MAX_AGE_SECONDS]
    environment = {**os.environ, "BEDPLATE_HEARTBEAT_FILE": str(cluster.folder / f"{name}-heartbeat")}
    return subprocess.run(probe, env=environment, capture_output=True, check=False).returncode == 0


def start(cluster: Cluster, name: str, module: str) -> Process:
    heartbeat = str(cluster.folder / f"{name}-heartbeat")
    return cluster.start(name, module, HEARTBEAT_FILE=heartbeat)


@pytest.mark.timeout(900)
@pytest.mark.parametrize("module", ["bedplate_workers", "bedplate_workers.reconciler"])
def test_the_probe_tells_a_frozen_process_from_a_living_one(cluster: Cluster, module: str) -> None:
    assert not alive(cluster, "probed")
    process = start(cluster, "probed", module)
    wait_until(lambda: alive(cluster, "probed"), process.log.read_text)
    process.running.send_signal(signal.SIGSTOP)
    wait_until(lambda: not alive(cluster, "probed"), process.log.read_text)
    process.running.send_signal(signal.SIGCONT)
    wait_until(lambda: alive(cluster, "probed"), process.log.read_text)
    assert process.stop(PATIENCE_SECONDS) == 0


@pytest.mark.timeout(900)
def test_a_worker_told_to_stop_gives_its_partition_back_at_once(
    cluster: Cluster, world: Any, embed: Callable[..., str], wait_for_middle: Callable[..., Any]
) -> None:
    """Untried, so that a rolling update of the workers uses up no attempt of any partition."""
    api = cluster.start_api("api")
    start(cluster, "reconciler", "bedplate_workers.reconciler")
    first = start(cluster, "first", "bedplate_workers")
    api.wait_until_ready()
    with cluster.client(api.url) as client:
        world.populate(client)
        job = embed(client, "core@1/item")
        wait_for_middle(client, job)
        assert first.stop(PATIENCE_SECONDS) == 0, first.log.read_text()[-4000:]
        assert client.jobs.get(job).state == "running"
        second = start(cluster, "second", "bedplate_workers")
        ended = client.jobs.watch(job, poll_seconds=0.2, timeout_seconds=PATIENCE_SECONDS)
        assert ended.state == "succeeded"
        partitions = sum(stage.total > 0 for stage in ended.progress if stage.stage != "embed") + 100
        assert ended.attempts <= partitions, "nothing was tried twice"
        assert client.spaces.lookup("core@1/item", world.keys).found.all()
    assert second.stop(PATIENCE_SECONDS) == 0
