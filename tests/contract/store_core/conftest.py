"""Every object store adapter, and a real S3 server where one can be had."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.contract.store_core.fault_proxy import FaultProxy
from tests.engines import S3

from bedplate_store.objects import (
    LocalObjectStore,
    MemoryObjectStore,
    ObjectStore,
    Patience,
    S3ObjectStore,
    open_object_store,
)

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
def s3_url(s3: S3) -> Iterator[str]:
    """``s3://`` URL of an empty bucket."""
    with s3.bucket() as url:
        yield url


@pytest.fixture(params=["local", "memory", "s3"])
def objects(request: pytest.FixtureRequest, tmp_path: Path) -> ObjectStore:
    if request.param == "local":
        return LocalObjectStore(tmp_path / "objects")
    if request.param == "memory":
        return MemoryObjectStore()
    url: str = request.getfixturevalue("s3_url")
    keys = request.getfixturevalue("s3").keys
    # A prefix of its own keeps the tests apart.
    return open_object_store(url.replace("?", f"/{uuid.uuid4().hex}?", 1), **keys)


@pytest.fixture
def proxy(s3: S3) -> Iterator[FaultProxy]:
    with FaultProxy(s3.endpoint) as proxy:
        yield proxy


@pytest.fixture
def faults() -> list[tuple[str, str, str]]:
    """(operation, reason, ending) of every fault that the store noticed."""
    return []


@pytest.fixture
def store(s3: S3, s3_url: str, proxy: FaultProxy, faults: Any) -> S3ObjectStore:
    bucket = s3_url.removeprefix("s3://").partition("?")[0]
    url = f"s3://{bucket}/{uuid.uuid4().hex}?endpoint={proxy.url}"
    opened = open_object_store(url, **s3.keys, patience=PATIENCE, on_fault=lambda *each: faults.append(each))
    assert isinstance(opened, S3ObjectStore)
    return opened
