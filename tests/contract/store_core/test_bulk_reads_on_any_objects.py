"""A space's files, read by the SDK from every kind of object store; from S3 with no byte through us."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from bedplate.client.downloads import Wanted, fetch
from bedplate.client.effects import Request
from bedplate.client.steps import SyncRunner
from bedplate.codecs import SCAN_COLUMNS, ScanInfo, scan_schema
from bedplate.space_data import FILES_READ, SpaceData, file_in
from bedplate.wire.registry import SpaceSignature
from bedplate.wire.store import SpaceFile, SpaceFiles, SpaceSegment
from bedplate_store import snapshots, space_scans, spaces
from bedplate_store.database import Database
from bedplate_store.objects import ObjectStore
from bedplate_store.segment_files import object_key
from bedplate_store.space_scans import PinnedState
from bedplate_store.spaces import SpaceKey
from bedplate_store.writes import Writes

NOW = datetime(2026, 3, 1, tzinfo=UTC)
KEY = SpaceKey("core", 1, "item")
ADDRESS = {"foundation": "core", "version": 1, "space": "item"}


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = Database(f"sqlite:///{tmp_path / 'store.db'}")
    database.migrate()
    yield database
    database.close()


@pytest.fixture
def state(database: Database, objects: ObjectStore, tmp_path: Path) -> PinnedState:
    """40 rows in a snapshot; above it one replaced, one new, one deleted."""
    signature = SpaceSignature(dim=3, dtype="float16", key_type="string")
    with database.write() as session:
        spaces.ensure_space(session, **ADDRESS, signature=signature, team="core", now=NOW)

    def upsert(keys: list[str], first: int) -> None:
        vectors = np.arange(first, first + 3 * len(keys), dtype=np.float32).reshape(-1, 3)
        Writes(database, objects).upsert(**ADDRESS, keys=keys, vectors=vectors, now=NOW)

    upsert([f"k{number:02}" for number in range(40)], 0)
    prepared = snapshots.prepare(database, objects, tmp_path / "cache", KEY, [], None, covers_sequence=1)
    with database.write() as session:
        snapshots.publish(session, prepared, objects=objects, job=None, now=NOW)
    upsert(["k03", "new"], 500)
    Writes(database, objects).delete(**ADDRESS, keys=["k05"], now=NOW)
    return space_scans.find_state(database, KEY, None, None)


class Served(httpx.BaseTransport):
    """Presigned URLs go to the object store itself, the others to a stand-in of the platform's own route."""

    def __init__(self, objects: ObjectStore) -> None:
        self._objects = objects
        self._network = httpx.HTTPTransport()
        self.by_service: list[str] = []
        self.ranges: list[str] = []

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        if "range" in request.headers:
            self.ranges.append(request.headers["range"])
        if request.url.host != "platform.test":
            return self._network.handle_request(request)
        self.by_service.append(request.url.path)
        content = self._objects.get(request.url.path.removeprefix("/"))
        start = int(request.headers.get("range", "bytes=0-").removeprefix("bytes=").rstrip("-"))
        headers = {"content-range": f"bytes {start}-{len(content) - 1}/{len(content)}"}
        return httpx.Response(
            206 if start else 200, headers=headers if start else {}, content=content[start:]
        )


def document(objects: ObjectStore, state: PinnedState) -> SpaceFiles:
    segments = [
        SpaceSegment(
            digest=info.digest,
            rows=info.rows,
            tombstones=info.tombstones,
            files=[
                SpaceFile(
                    name=name,
                    bytes=file.bytes,
                    sha256=file.sha256,
                    url=objects.signed_url(object_key(info.digest, name), 60)
                    or f"http://platform.test/{object_key(info.digest, name)}",
                )
                for name, file in files.items()
            ],
        )
        for info, files in space_scans.segment_manifests(objects, state)
    ]
    return SpaceFiles(
        reference=str(KEY),
        snapshot=state.snapshot,
        sequence=state.sequence,
        dim=state.dim,
        dtype=state.dtype,
        key_type=state.key_type,
        segments=segments,
    )


def wanted(files: SpaceFiles, folder: Path) -> list[Wanted]:
    return [
        Wanted(
            Request("GET", file.url, idempotent=True, authenticated=False),
            file_in(folder, segment, file.name),
            file.bytes,
            file.sha256,
        )
        for segment in files.segments
        for file in segment.files
        if file.name in FILES_READ
    ]


def test_the_files_give_what_a_scan_gives(objects: ObjectStore, state: PinnedState, tmp_path: Path) -> None:
    files, folder = document(objects, state), tmp_path / "fetched"
    served = Served(objects)
    # Half of one file is there, as a killed process left it: the rest is asked for, also from S3.
    largest = max(wanted(files, folder), key=lambda one: one.bytes)
    largest.target.parent.mkdir(parents=True)
    partial = largest.target.with_name(f".{largest.target.name}.{largest.sha256[:16]}.partial")
    first = files.segments[0]
    partial.write_bytes(objects.get(object_key(first.digest, largest.target.name))[: largest.bytes // 2])
    with httpx.Client(transport=served) as http:
        SyncRunner(http, lambda _: None).run(fetch(wanted(files, folder)))
    assert served.ranges == [f"bytes={largest.bytes // 2}-"]
    assert bool(served.by_service) == (objects.signed_url("a", 60) is None)
    data = SpaceData(files, lambda segment, name: file_in(folder, segment, name))
    found: dict[Any, list[float]] = {}
    for read in data.batches(7):
        assert read.keys is not None
        assert read.vectors is not None
        found |= dict(zip(read.keys, read.vectors.tolist(), strict=True))
    scan = space_scans.open_scan(objects, tmp_path / "cache", state)
    schema = scan_schema(ScanInfo(str(KEY), 1, 3, 0, 40), "string", 3, "float16", SCAN_COLUMNS)
    expected: dict[Any, list[float]] = {}
    for batch in scan.batches(range(len(scan.order)), 11, schema):
        expected |= dict(zip(batch["key"].to_pylist(), batch["vector"].to_pylist(), strict=True))
    assert list(found) == list(expected)
    assert found == expected
    assert len(found) == 40
    assert found["k03"] == [500, 501, 502]
