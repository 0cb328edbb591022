"""A version is published and an alias moves to it and back, under clients that never stop.

No request fails, no answer mixes versions, no process ever holds more than the two mapped snapshots, and the
old files are unmapped when nobody reads them any more. Once a process that answers is killed in the middle.
"""

from __future__ import annotations

import json
import mmap
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file
from tests.waiting import wait_until

from bedplate import Client
from bedplate.wire.registry import Signature, SpaceSignature, TensorSignature
from bedplate.wire.store import IndexSpecification
from bedplate_modeling import checkpoint_layout as layout
from bedplate_services.supervisor.platform import Platform
from bedplate_store import snapshots
from bedplate_store.database import Database
from bedplate_store.objects import open_object_store
from bedplate_store.segments import write_segment
from bedplate_store.spaces import SpaceKey

ROWS, DIM = 40_000, 256
GROWTH_BYTES = 10 << 20
"""Anonymous memory a process may take on top: answers under way, threads' arenas, connections. Less than an
index's file, 10.6 MiB, and a fourth of the vectors': a copy of either does not pass."""
KEEP_SECONDS = 3.0
PATIENCE_SECONDS = 120.0
MODES = ("sdk", "sdk", "raw", "json")
_CLIENT = Path(__file__).with_name("swap_client.py")
_MAPPING = re.compile(r"^[0-9a-f]+-[0-9a-f]+ \S+ \S+ \S+ \S+ +(\S.*)$")


def apis(platform: Platform) -> dict[str, int]:
    return {name: pid for name, pid in platform.pids().items() if name.startswith("api")}


def resident_bytes(pid: int) -> tuple[dict[str, int], int]:
    """Of each mapped object file, and of all anonymous memory. A file mapped twice counts once."""
    files: dict[str, int] = {}
    anonymous, path = 0, ""
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        header = _MAPPING.match(line)
        if header is not None:
            path = header.group(1)
        elif line[:1].islower() or "-" in line.partition(" ")[0]:
            path = ""
        elif line.startswith("Rss:") and "/objects/" in path:
            files[path] = max(files.get(path, 0), int(line.split()[1]) * 1024)
        elif line.startswith("Anonymous:"):
            anonymous += int(line.split()[1]) * 1024
    return files, anonymous


@dataclass
class Watch(threading.Thread):
    """Looks again and again at what the processes that answer have in memory."""

    platform: Platform
    most_mapped: int = 0
    sizes: dict[str, int] = field(default_factory=dict)
    anonymous: dict[int, list[int]] = field(default_factory=dict)
    ended: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        super().__init__(daemon=True)

    def __hash__(self) -> int:
        return id(self)

    def run(self) -> None:
        while not self.ended.wait(0.1):
            for pid in apis(self.platform).values():
                try:
                    files, anonymous = resident_bytes(pid)
                except (FileNotFoundError, ProcessLookupError):
                    continue  # killed meanwhile
                self.most_mapped = max(self.most_mapped, sum(files.values()))
                self.sizes |= {path: Path(path).stat().st_size for path in files.keys() - self.sizes.keys()}
                self.anonymous.setdefault(pid, []).append(anonymous)


@contextmanager
def clients(platform: Platform) -> Iterator[Callable[[], list[dict[str, Any]]]]:
    """Client processes that read; calling what this gives ends them and returns their reports."""
    running = [
        subprocess.Popen(
            [sys.executable, str(_CLIENT), mode, platform.url, platform.token],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for mode in MODES
    ]

    def end() -> list[dict[str, Any]]:
        for process in running:
            assert process.stdin is not None
            process.stdin.close()
            process.stdin = None
        return [json.loads(process.communicate(timeout=PATIENCE_SECONDS)[0]) for process in running]

    try:
        for process in running:
            assert process.stdout is not None
            assert process.stdout.readline() == "reading\n"
        yield end
    finally:
        for process in running:
            process.kill()
            process.wait()


def publish(client: Client, folder: Path, version: int) -> None:
    """A version without a model: its vectors are written here, not computed."""
    folder.mkdir()
    save_file({"number": np.full(1, version, np.float32)}, folder / layout.WEIGHTS)
    (folder / layout.CONFIG).write_text(json.dumps({"architecture": layout.FOUNDATION}))
    signature = Signature(
        architecture=layout.FOUNDATION,
        spaces={"item": SpaceSignature(dim=DIM, dtype="float32", key_type="int64")},
        tensors={"number": TensorSignature(dtype="F32", shape=[1])},
    )
    (folder / layout.SIGNATURE).write_text(signature.model_dump_json())
    client.versions.publish("core", folder)


def rows(version: int, snapshot: int) -> np.ndarray:
    vectors = np.random.default_rng(version).standard_normal((ROWS, DIM), np.float32)
    vectors[:, 0] = 10 * version + snapshot
    return vectors


def embed(platform: Platform, folder: Path, version: int) -> None:
    """Give a version its first snapshot as an embed job ends: a segment, an index, a publication."""
    key = SpaceKey("core", version, "item")
    database = Database(platform.directory.store_database_url)
    objects = open_object_store(platform.directory.objects_url)
    segment = write_segment(
        objects, keys=np.arange(ROWS), vectors=rows(version, 1), dtype="float32", key_type="int64"
    )
    index = IndexSpecification(kind="ivf")
    prepared = snapshots.prepare(database, objects, folder, key, [segment.digest], index)
    with database.write() as session:
        snapshots.publish(session, prepared, objects=objects, job=None, now=datetime.now(UTC))
    database.close()


def fill(client: Client, version: int, snapshot: int) -> None:
    """Give a version its next snapshot: rows written, and a job of the worker that indexes and publishes."""
    vectors = rows(version, snapshot)
    client.spaces.upsert(f"core@{version}/item", np.arange(ROWS), vectors)
    job = client.spaces.compact(f"core@{version}/item")
    client.jobs.watch(job, poll_seconds=0.05, timeout_seconds=PATIENCE_SECONDS)
    assert client.spaces.get(f"core@{version}/item").snapshot == snapshot


@pytest.fixture
def swapping(tmp_path: Path) -> Iterator[tuple[Platform, Client]]:
    """Two API processes on one port, and core@1, which the alias points at."""
    environment = {"BEDPLATE_READER_KEEP_SECONDS": str(KEEP_SECONDS)}
    with (
        Platform(tmp_path / "data", api_processes=2, environment=environment) as platform,
        Client(platform.client_url, platform.token) as client,
    ):
        client.teams.create("foundation")
        client.foundations.create("core", team="foundation")
        for version in (1, 2):
            publish(client, tmp_path / f"checkpoint-{version}", version)
        embed(platform, tmp_path / "building", 1)
        client.aliases.move("core", "production", 1)
        yield platform, client


def serving(client: Client, version: int) -> set[str]:
    """The processes that have a version open at its newest snapshot."""
    readers = client.spaces.readers(f"core@{version}/item")
    return {reader.process for reader in readers if reader.newest}


def check(reports: list[dict[str, Any]], states: set[str], broken: int) -> None:
    for mode, report in zip(MODES, reports, strict=True):
        assert report["mixed"] == []
        assert report["failures"] == [], mode
        assert len(report["broken"]) <= (0 if mode == "sdk" else broken), report["broken"]
        assert set(report["answers"]) >= states, (mode, report["answers"])


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells which files a process has mapped")
def test_a_swap_and_a_rollback_under_load(swapping: tuple[Platform, Client], tmp_path: Path) -> None:
    platform, client = swapping
    with clients(platform) as end:
        wait_until(lambda: serving(client, 1), "the first version is open")
        old = {path for pid in apis(platform).values() for path in resident_bytes(pid)[0]}
        watch = Watch(platform)
        watch.start()
        try:
            embed(platform, tmp_path, 2)
            readers = serving(client, 1)
            wait_until(lambda: serving(client, 2) >= readers, "every reader opens version 2 by itself")
            for version, expected in ((2, 1), (1, 2), (2, 1)):
                client.aliases.move("core", "production", version, expected=expected)
                time.sleep(1.0)  # traffic on each side; longer than any process may answer with the old one
        finally:
            watch.ended.set()
            watch.join()
        wait_until(lambda: not _mapped(platform, old), "the files of version 1 are let go")
        reports = end()
    check(reports, {"core@1/1", "core@2/1"}, broken=0)
    both = sum(client.spaces.snapshots(f"core@{version}/item")[0].bytes for version in (1, 2))
    assert sum(watch.sizes.values()) == both, "nothing is mapped but the files of the two snapshots"
    assert watch.most_mapped <= both + mmap.PAGESIZE * len(watch.sizes), "their last pages are not full"
    for grown in watch.anonymous.values():
        assert max(grown) - grown[0] <= GROWTH_BYTES, "mapped, not copied"


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells which files a process has mapped")
def test_a_reader_killed_in_the_middle(swapping: tuple[Platform, Client]) -> None:
    """And its successor opens what the others serve; then a newer snapshot is published, and the alias moves
    back to a version that was let go meanwhile."""
    platform, client = swapping
    with clients(platform) as end:
        wait_until(lambda: serving(client, 1), "the first version is open")
        fill(client, 2, 1)
        killed = apis(platform)["api-2"]
        os.kill(killed, signal.SIGKILL)
        wait_until(lambda: apis(platform).get("api-2") != killed, "it is gone")
        # A move is sent once: not over a connection to the killed process.
        with Client(platform.client_url, platform.token) as mover:
            mover.aliases.move("core", "production", 2, expected=1, wait_for_readers_seconds=30)
        wait_until(lambda: "api-2" in apis(platform), "it is started again")
        successor = apis(platform)["api-2"]
        wait_until(
            lambda: any(process.endswith(f"/{successor}") for process in serving(client, 2)),
            "the successor opens what the others serve",
        )
        fill(client, 2, 2)
        wait_until(lambda: len(serving(client, 2)) == 2, "both have the newer snapshot")
        wait_until(lambda: not serving(client, 1), "version 1 is let go")
        client.aliases.move("core", "production", 1, expected=2, wait_for_readers_seconds=30)
        time.sleep(1.0)
        reports = end()
    # A client without retries sees each of its connections break once, and may meet the dying listener.
    check(reports, {"core@1/1", "core@2/1", "core@2/2"}, broken=2)


def _mapped(platform: Platform, paths: set[str]) -> set[str]:
    maps = "".join(Path(f"/proc/{pid}/maps").read_text() for pid in apis(platform).values())
    return {path for path in paths if path in maps}
