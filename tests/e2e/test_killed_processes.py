"""kill -9 in the middle of an embed job: it ends by itself, and nobody can tell from the snapshot."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from bedplate import Client
from bedplate.wire.store import IndexSpecification
from bedplate_services.supervisor.platform import Platform


def test_a_killed_worker_costs_nothing_but_time(
    platform: Platform,
    client: Client,
    embed: Callable[..., str],
    wait_for_middle: Callable[..., Any],
    snapshot_digest: Callable[..., str],
) -> None:
    job = embed(client, "core@2/user")
    wait_for_middle(client, job)
    killed = platform.pids()["worker"]
    os.kill(killed, signal.SIGKILL)
    disturbed = snapshot_digest(client, job, "core@2/user")
    assert platform.pids()["worker"] != killed
    undisturbed = snapshot_digest(client, embed(client, "core@2/user"), "core@2/user")
    assert disturbed == undisturbed


def test_a_worker_killed_while_it_adds_to_an_index_costs_nothing_but_time(
    platform: Platform,
    client: Client,
    embed: Callable[..., str],
    wait_for_middle: Callable[..., Any],
    snapshot_digest: Callable[..., str],
) -> None:
    """The catalogue alone is too small for inverted lists, so the space holds rows of other keys as well."""
    rows = 4_000
    vectors = np.random.default_rng(3).standard_normal((rows, 16)).astype(np.float32)
    others = [f"other-{number}" for number in range(rows)]
    client.spaces.upsert("core@1/item", others, vectors)
    lists = IndexSpecification(kind="ivf", recall_target=0.9)
    job = embed(client, "core@1/item", index=lists)
    wait_for_middle(client, job, "add")
    killed = platform.pids()["worker"]
    os.kill(killed, signal.SIGKILL)
    disturbed = snapshot_digest(client, job, "core@1/item")
    assert platform.pids()["worker"] != killed
    undisturbed = snapshot_digest(
        client, embed(client, "core@1/item", partitions=1, index=lists), "core@1/item"
    )
    assert disturbed == undisturbed
    assert client.spaces.lookup("core@1/item", ["other-0", "item-0001"]).found.all()
    client.spaces.delete("core@1/item", others)  # the platform is left as the other tests expect it


def test_a_killed_platform_goes_on_where_it_was(
    tmp_path: Path,
    world: Any,
    client: Client,
    up: Callable[..., Any],
    embed: Callable[..., str],
    wait_for_middle: Callable[..., Any],
    snapshot_digest: Callable[..., str],
) -> None:
    """An embed job is under way, and writes have just been acknowledged, when every process is killed."""
    first = up(tmp_path)
    port = first.announced["url"].rpartition(":")[2]
    vectors = np.arange(48, dtype=np.float32).reshape(3, 16)
    with first.client() as victim:
        world.populate(victim)
        job = embed(victim, "core@1/item")
        victim.spaces.upsert("core@2/item", ["a", "b", "c"], vectors)
        victim.spaces.delete("core@2/item", ["b"])
        wait_for_middle(victim, job)
        first.kill_all()

    killed_at = datetime.now(UTC)
    second = up(tmp_path, "--port", port, "--inference-port", "0")
    assert second.announced["url"] == first.announced["url"], "no orphan held the port"
    assert second.token == first.token
    with second.client() as survivor:
        found = survivor.spaces.lookup("core@2/item", ["a", "b", "c"])
        assert found.found.tolist() == [True, False, True]
        np.testing.assert_array_equal(found.vectors[[0, 2]], vectors[[0, 2]])
        disturbed = snapshot_digest(survivor, job, "core@1/item")
        assert survivor.jobs.get(job).finished_at > killed_at
        assert survivor.spaces.lookup("core@1/item", world.keys).found.all()
    undisturbed = snapshot_digest(client, embed(client, "core@1/item"), "core@1/item")
    assert disturbed == undisturbed
