"""An alias moves while clients keep reading: no failed request, and no answer that mixes two versions."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from bedplate import Client
from bedplate_services.supervisor.platform import Platform

READERS = 3
MOVES = 6
PATIENCE_SECONDS = 60.0


class Reader(threading.Thread):
    """Looks the same keys up again and again through the alias."""

    def __init__(self, platform: Platform, keys: list[str], stop: threading.Event) -> None:
        super().__init__(daemon=True)
        self.answers: list[tuple[str, Any]] = []
        self.failures: list[BaseException] = []
        self._platform, self._keys, self._stop_asked = platform, keys, stop

    def run(self) -> None:
        with Client(self._platform.client_url, self._platform.token) as client:
            while not self._stop_asked.is_set():
                try:
                    found = client.spaces.lookup("core@production/item", self._keys)
                except Exception as error:  # noqa: BLE001  # the test is about there being none
                    self.failures.append(error)
                else:
                    self.answers.append((found.version, found.vectors))


def wait_until_all_follow(readers: list[Reader], version: str) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not all(reader.answers and reader.answers[-1][0] == version for reader in readers):
        assert time.monotonic() < deadline, [reader.failures for reader in readers]
        time.sleep(0.02)


def test_readers_follow_an_alias_without_a_failed_or_mixed_answer(
    platform: Platform, client: Client, world: Any, embed: Callable[..., str]
) -> None:
    keys = world.keys[:50]
    expected = {}
    for version in ("core@1", "core@2"):
        job = embed(client, f"{version}/item", partitions=3)
        client.jobs.watch(job, poll_seconds=0.05, timeout_seconds=120)
        expected[version] = client.spaces.lookup(f"{version}/item", keys).vectors
    assert not np.allclose(expected["core@1"], expected["core@2"])
    client.aliases.move("core", "production", 1)

    stop = threading.Event()
    readers = [Reader(platform, keys, stop) for _ in range(READERS)]
    for reader in readers:
        reader.start()
    pointed = 1
    for _ in range(MOVES):
        wait_until_all_follow(readers, f"core@{pointed}")
        client.aliases.move("core", "production", 3 - pointed, expected=pointed)
        pointed = 3 - pointed
    wait_until_all_follow(readers, f"core@{pointed}")
    stop.set()
    for reader in readers:
        reader.join()

    assert [reader.failures for reader in readers] == [[]] * READERS
    answers = [answer for reader in readers for answer in reader.answers]
    assert {version for version, _ in answers} == {"core@1", "core@2"}
    for version, vectors in answers:
        np.testing.assert_array_equal(vectors, expected[version])
    assert [change.to_version for change in client.aliases.history("core", "production")][-1] == pointed
