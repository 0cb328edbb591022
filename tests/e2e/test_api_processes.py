"""Several API processes on one port: every write is seen through all of them, and metrics count them all."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from bedplate import Client
from bedplate_services.supervisor.platform import Platform

CONNECTIONS = 24  # that all of them reach one process of two has a chance of 1 in 8 million
SPACE = "core@1/item"
PATIENCE_SECONDS = 30.0


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    with Platform(tmp_path_factory.mktemp("processes"), api_processes=2) as running:
        yield running


@pytest.fixture(scope="module")
def filled(platform: Platform, world: Any, tmp_path_factory: pytest.TempPathFactory) -> Platform:
    with Client(platform.url, platform.token) as client:
        world.populate(client)
        client.spaces.upsert(SPACE, world.keys[:1], np.zeros((1, 16), np.float32))
    return platform


def through_every_process(platform: Platform, ask: Callable[[Client], object]) -> list[object]:
    """Answers over many new connections, which the kernel deals out among the processes."""
    answers = []
    for _ in range(CONNECTIONS):
        with Client(platform.url, platform.token) as client:
            answers.append(ask(client))
    return answers


def test_a_write_is_soon_seen_through_every_process(filled: Platform, world: Any) -> None:
    key = world.keys[0]

    def ask(client: Client) -> float:
        return float(client.spaces.lookup(SPACE, [key]).vectors[0, 0])

    through_every_process(filled, ask)
    with Client(filled.url, filled.token) as client:
        client.spaces.upsert(SPACE, [key], np.full((1, 16), 0.5, np.float32))
    _until(lambda: set(through_every_process(filled, ask)) == {0.5})


def test_metrics_are_those_of_all_processes(filled: Platform, world: Any) -> None:
    def counted() -> float:
        text = httpx.get(f"{filled.url}/metrics", trust_env=False).text
        values = re.findall(r'requests_total\{.*route="[^"]*/lookup".*status="200"\} ([0-9.]+)', text)
        return sum(map(float, values))

    before = counted()
    key = world.keys[0]
    through_every_process(filled, lambda client: client.spaces.lookup(SPACE, [key]))
    assert {counted() for _ in range(CONNECTIONS)} == {before + CONNECTIONS}


def test_one_process_killed_leaves_the_others_answering(filled: Platform, world: Any) -> None:
    key, before = world.keys[0], filled.pids()
    assert {"api", "api-2"} <= set(before)
    os.kill(before["api-2"], signal.SIGKILL)
    through_every_process(filled, lambda client: client.spaces.lookup(SPACE, [key]))
    _until(lambda: filled.pids().get("api-2", before["api-2"]) != before["api-2"])


def test_the_port_is_still_refused_to_another_platform(filled: Platform, tmp_path: Path) -> None:
    port = int(filled.url.rpartition(":")[2])
    with pytest.raises(Exception, match="--port"):
        Platform(tmp_path, port=port, api_processes=2).start()


def _until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)
