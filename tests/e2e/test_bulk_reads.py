"""A whole space is read while the API that sends it is killed."""

from __future__ import annotations

import os
import signal

import numpy as np

from bedplate import Client
from bedplate_services.supervisor.platform import Platform

ROWS, DIM = 200_000, 16


def test_a_scan_outlives_the_api(platform: Platform, client: Client) -> None:
    """More rows than sockets and buffers hold, so that the kill comes in the middle of the stream."""
    keys = [f"bulk-{number:06}" for number in range(ROWS)]
    vectors = np.arange(ROWS * DIM, dtype=np.float32).reshape(ROWS, DIM) % 2048
    for start in range(0, ROWS, 50_000):
        part = slice(start, start + 50_000)
        last = client.spaces.upsert("core@2/user", keys[part], vectors[part])
    client.spaces.lookup("core@2/user", keys[-1:], after=last)
    before = {batch.info.sequence for batch in client.spaces.scan("core@2/user", columns=["key"])}
    batches = client.spaces.scan("core@2/user", batch_rows=1000)
    found: list[str] = []
    killed = None
    for batch in batches:
        found += batch.keys or []
        assert {batch.info.sequence} == before
        if killed is None:
            killed = next(pid for name, pid in platform.pids().items() if name.startswith("api"))
            os.kill(killed, signal.SIGKILL)
    assert len(found) == len(set(found))
    assert set(keys) <= set(found)
    assert killed not in platform.pids().values()
    client.spaces.delete("core@2/user", keys[:100_000])
    client.spaces.delete("core@2/user", keys[100_000:])
