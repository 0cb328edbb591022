"""Writers, readers and compactions at once, and the API killed in the middle: nothing acknowledged is lost,
nothing seen goes back in time, and nobody can tell from the answers when a compaction was published.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from bedplate import Client
from bedplate.errors import SpaceNotReady, Unavailable
from bedplate_services.supervisor.platform import Platform

SPACE = "core@1/item"
DIM = 16
WRITERS = 3
WRITES = 60
ROWS = 50
KEYS_EACH = 400
PATIENCE_SECONDS = 60.0


class Writer:
    """Replaces and deletes keys of its own, and knows what was acknowledged."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.model: dict[str, float | None] = {}
        self.written = 0

    def run(self, platform: Platform, last: int) -> None:
        """Write until write ``last``; each is read back at once, by its token."""
        with Client(platform.client_url, platform.token) as client:
            while self.written < last:
                step = self.written + 1
                keys = [f"{self.number}-{(step * 17 + row) % KEYS_EACH}" for row in range(ROWS)]
                answer = patient(lambda: self._write(client, step, keys))  # noqa: B023  # called at once
                self.model.update(dict.fromkeys(keys, None if step % 7 == 0 else float(step)))
                self.written = step
                seen = patient(lambda: client.spaces.lookup(SPACE, keys, after=answer))  # noqa: B023
                assert seen.found.tolist() == [step % 7 != 0] * ROWS
                if step % 7:
                    assert (seen.vectors == step).all(), "the newest write wins"

    def _write(self, client: Client, step: int, keys: list[str]) -> Any:
        if step % 7 == 0:
            return client.spaces.delete(SPACE, keys)
        return client.spaces.upsert(SPACE, keys, np.full((ROWS, DIM), step, np.float32))


def patient(ask: Any) -> Any:
    """The answer, however long the killed API takes to come back; no other error is forgiven."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            return ask()
        except Unavailable:
            assert time.monotonic() < deadline


def watch(platform: Platform, stop: threading.Event) -> int:
    """Read without tokens until told to stop: a key's value only ever grows; returns how often it looked."""
    keys = [f"{writer}-{number}" for writer in range(WRITERS) for number in range(0, KEYS_EACH, 40)]
    highest = np.zeros(len(keys))
    snapshot = rounds = 0
    with Client(platform.client_url, platform.token) as client:
        while not stop.is_set():
            try:
                found = patient(lambda: client.spaces.lookup(SPACE, keys))
            except SpaceNotReady:
                continue  # nothing was written yet
            values = np.where(found.found, found.vectors[:, 0], highest)
            assert (values >= highest).all(), "no answer is older than one before it"
            assert found.snapshot >= snapshot
            highest, snapshot, rounds = values, found.snapshot, rounds + 1
    return rounds


def write(platform: Platform, writers: list[Writer], last: int, compactions: int) -> None:
    """All writers up to write ``last``, while so many compactions are published."""
    with ThreadPoolExecutor(WRITERS) as pool, Client(platform.client_url, platform.token) as client:
        running = [pool.submit(writer.run, platform, last) for writer in writers]
        for _ in range(compactions):
            client.jobs.watch(client.spaces.compact(SPACE), poll_seconds=0.05, timeout_seconds=120)
        for each in running:
            each.result()


def check(client: Client, writers: list[Writer]) -> None:
    """Lookup and search agree with what was acknowledged, to the last row."""
    expected = {key: value for writer in writers for key, value in writer.model.items()}
    found = client.spaces.lookup(SPACE, list(expected))
    assert found.found.tolist() == [value is not None for value in expected.values()]
    assert found.vectors[:, 0].tolist() == [value or 0.0 for value in expected.values()]
    living = {key: value for key, value in expected.items() if value is not None}
    nearest = client.spaces.search(SPACE, np.ones((1, DIM), np.float32), k=1000)
    hits = [key for key in nearest.keys[0] if key is not None]
    assert len(hits) == len(set(hits)) == min(1000, len(living))
    scores = sorted((DIM * value for value in living.values()), reverse=True)[:1000]
    np.testing.assert_allclose(nearest.scores[0][: len(hits)], scores, rtol=1e-3)
    np.testing.assert_allclose([DIM * living[key] for key in hits], nearest.scores[0][: len(hits)], rtol=1e-3)


def test_nothing_is_lost_and_nothing_goes_back_in_time(world: Any, tmp_path: Path) -> None:
    writers = [Writer(number) for number in range(WRITERS)]
    stop = threading.Event()
    with (
        Platform(tmp_path / "data") as platform,
        ThreadPoolExecutor(1) as pool,
        Client(platform.client_url, platform.token) as client,
    ):
        world.populate(client)
        reader = pool.submit(watch, platform, stop)
        try:
            write(platform, writers, WRITES, compactions=2)
            killed = api_of(platform)
            killer = threading.Timer(0.3, os.kill, (killed, signal.SIGKILL))
            killer.start()
            write(platform, writers, 2 * WRITES, compactions=0)
            killer.join()
            write(platform, writers, 2 * WRITES + 10, compactions=1)
        finally:
            stop.set()
        assert reader.result() > 10
        assert api_of(platform) != killed
        # Every last write was read back by its token, so from here on everybody sees it.
        check(client, writers)
        client.jobs.watch(client.spaces.compact(SPACE), poll_seconds=0.05, timeout_seconds=120)
        assert client.spaces.get(SPACE).pending_rows == 0
        check(client, writers)


def api_of(platform: Platform) -> int:
    return next(pid for name, pid in platform.pids().items() if name.startswith("api"))
