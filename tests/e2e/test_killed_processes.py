"""kill -9 in the middle of an embed job: it ends by itself, and nobody can tell from the snapshot."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bedplate import Client
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


def test_a_killed_platform_finishes_its_job_after_the_next_start(
    tmp_path: Path,
    world: Any,
    client: Client,
    up: Callable[..., Any],
    embed: Callable[..., str],
    wait_for_middle: Callable[..., Any],
    snapshot_digest: Callable[..., str],
) -> None:
    first = up(tmp_path)
    with first.client() as victim:
        world.populate(victim)
        job = embed(victim, "core@1/item")
        wait_for_middle(victim, job)
        first.kill_all()
    second = up(tmp_path)
    with second.client() as survivor:
        disturbed = snapshot_digest(survivor, job, "core@1/item")
        assert survivor.spaces.lookup("core@1/item", world.keys).found.all()
    undisturbed = snapshot_digest(client, embed(client, "core@1/item"), "core@1/item")
    assert disturbed == undisturbed
