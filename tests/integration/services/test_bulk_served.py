"""Large answers of the API over real connections: clients that leave, wait, come together, or use the SDK."""

from __future__ import annotations

import hashlib
import socket
import struct
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from bedplate import Client
from bedplate.client.downloads import Wanted, fetch
from bedplate.client.effects import Request
from bedplate_services.api import create_app

from .conftest import NOW, World
from .lane_servers import HOST, Servers, serve
from .test_bulk_routes import compact, delete, vectors

ROWS = 300_000
OBJECT = np.random.default_rng(0).bytes(12_000_000)
"""More than a connection's buffers hold where the client's is small."""
_WAIT_SECONDS = 30


@dataclass
class Served:
    """The API on a port of this machine, and the way to an object of its store."""

    world: World
    servers: Servers

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.servers.lane}"

    @property
    def object_path(self) -> str:
        url = self.world.platform.signer.url("big", expires=int(NOW.timestamp()) + 3600)
        return url.removeprefix("http://127.0.0.1:8700")

    def ask(self, path: str, *headers: str) -> socket.socket:
        """A connection of small buffers on which a GET was sent."""
        connection = socket.socket()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
        connection.settimeout(_WAIT_SECONDS)
        connection.connect((HOST, self.servers.lane))
        token = f"authorization: Bearer {self.world.secrets['feed-team']}"
        lines = [f"GET {path} HTTP/1.1", "host: x", "connection: close", token, *headers]
        connection.sendall("\r\n".join([*lines, "", ""]).encode())
        return connection


@pytest.fixture(scope="module")
def served(shared_world: World) -> Iterator[Served]:
    world = shared_world
    world.publish()
    for first in range(0, ROWS, 100_000):
        world.upsert("core@1/item", np.arange(first, first + 100_000), vectors(4 * first, 100_000))
    compact(world)
    delete(world, np.array([77]))
    world.platform.objects.put("big", OBJECT)
    with serve(create_app(world.platform.settings, world.platform)) as servers:
        yield Served(world, servers)


def body(connection: socket.socket) -> bytes:
    with connection:
        answer = b"".join(iter(lambda: connection.recv(1 << 20), b""))
    head, _, found = answer.partition(b"\r\n\r\n")
    assert f"content-length: {len(found)}".encode() in head.lower()
    return found


def mappings(file: Path) -> int:
    """How often this process, which is the server's too, has mapped a file."""
    return Path("/proc/self/maps").read_text().count(str(file))


@pytest.mark.parametrize("reset", [False, True])
def test_who_leaves_in_the_middle_leaves_nothing_behind(served: Served, reset: bool) -> None:
    file = served.world.platform.objects.local_path("big")  # None in S3, whose objects are copied
    for path in (served.object_path, "/v1/spaces/core@1/item/scan"):
        for _ in range(5):
            with served.ask(path) as connection:
                begun = b""
                while len(begun) < 10_000:
                    begun += connection.recv(1000)
                assert begun.startswith(b"HTTP/1.1 200")
                assert file is None or mappings(file) or path != served.object_path
                if reset:
                    linger = struct.pack("ii", 1, 0)
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    assert body(served.ask(served.object_path)) == OBJECT
    until = time.monotonic() + _WAIT_SECONDS
    while file is not None and mappings(file):
        assert time.monotonic() < until, "the object is still mapped"
        time.sleep(0.05)


def test_a_slow_reader_gets_every_byte_and_nobody_waits_for_it(served: Served) -> None:
    with served.ask(served.object_path) as slow:
        assert slow.recv(100)
        began = time.monotonic()
        assert body(served.ask(served.object_path)) == OBJECT
        assert time.monotonic() - began < _WAIT_SECONDS
    slow = served.ask(served.object_path)
    time.sleep(0.3)
    assert body(slow) == OBJECT


def test_ranges_at_once(served: Served) -> None:
    ranges = [(first, min(first + 2_500_000, len(OBJECT))) for first in range(0, len(OBJECT), 2_500_000)]
    asked = [served.ask(served.object_path, f"range: bytes={first}-{last - 1}") for first, last in ranges]
    found: dict[int, bytes] = {}

    def take(number: int) -> None:
        found[number] = body(asked[number])

    threads = [threading.Thread(target=take, args=(number,)) for number in range(len(asked))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert b"".join(found[number] for number in range(len(asked))) == OBJECT


def test_the_sdk_streams_the_space(served: Served) -> None:
    with Client(served.url, served.world.secrets["feed-team"], environment={}) as client:
        batches = list(client.spaces.scan("core@1/item"))
    keys = np.concatenate([batch.keys for batch in batches if batch.keys is not None])
    read = np.concatenate([batch.vectors for batch in batches if batch.vectors is not None])
    assert np.array_equal(keys, np.delete(np.arange(ROWS), 77))
    assert np.array_equal(read, np.delete(vectors(0, ROWS), 77, axis=0))


def test_the_sdk_fetches_by_signed_url(served: Served, tmp_path: Path) -> None:
    """Several files at once, of one the beginning is there."""
    request = Request("GET", served.object_path, idempotent=True, authenticated=False)
    digest = hashlib.sha256(OBJECT).hexdigest()
    files = [Wanted(request, tmp_path / str(number), len(OBJECT), digest) for number in range(3)]
    (tmp_path / f".0.{digest[:16]}.partial").write_bytes(OBJECT[:7_000_001])
    with Client(served.url, served.world.secrets["feed-team"], environment={}) as client:
        client.runner.run(fetch(files))
    assert all(file.target.read_bytes() == OBJECT for file in files)
