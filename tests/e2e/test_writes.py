"""Upserts and deletes are visible to every reader within one second; see also test_killed_processes."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from bedplate import Client
from bedplate_services.supervisor.platform import Platform
from bedplate_store.database import Database
from bedplate_store.objects import open_object_store
from bedplate_store.readers import SpaceReaders

VISIBLE_SECONDS = 1.0


def test_writes_are_visible_to_a_reader_in_another_process_within_a_second(
    platform: Platform, client: Client, world: Any, embed: Callable[..., str], tmp_path: Path
) -> None:
    client.jobs.watch(embed(client, "core@1/item"), poll_seconds=0.05, timeout_seconds=120)
    database = Database(platform.directory.store_database_url)
    readers = SpaceReaders(database, open_object_store(platform.directory.objects_url), tmp_path)
    changed, deleted = world.keys[0], world.keys[1]
    assert readers.get("core", 1, "item").lookup([changed, deleted]).found.all()

    vector = np.full((1, 16), 0.25, np.float32)
    client.spaces.upsert("core@1/item", [changed], vector)
    last = client.spaces.delete("core@1/item", [deleted])
    acknowledged = time.monotonic()
    seen = client.spaces.lookup("core@1/item", [changed, deleted], after=last)
    assert seen.found.tolist() == [True, False], "whoever carries the token sees the write at once"
    while True:
        found = readers.get("core", 1, "item").lookup([changed, deleted])
        if found.found.tolist() == [True, False] and np.array_equal(found.vectors[:1], vector):
            break
        assert time.monotonic() - acknowledged < VISIBLE_SECONDS
        time.sleep(0.02)
    hits = client.spaces.search("core@1/item", vector, k=600, after=last.token)
    assert changed in hits.keys[0]
    assert deleted not in hits.keys[0]
    database.close()
