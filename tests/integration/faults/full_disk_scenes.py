"""What happens on a full disk, played on a real small one: run by test_full_disk.py, one process a scene.

``python -m tests.integration.faults.full_disk_scenes SCENE SMALL ROOMY``, ``SMALL`` with 8 MiB.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from bedplate.errors import StorageFull
from bedplate.wire.registry import SpaceSignature
from bedplate.wire.store import IndexSpecification
from bedplate_registry.checkpoint_cache import CheckpointCache
from bedplate_services import problems
from bedplate_store import jobs, snapshots, spaces
from bedplate_store.database import Database
from bedplate_store.impression_spool import SpoolWriter
from bedplate_store.objects import LocalObjectStore, MemoryObjectStore, ObjectStore
from bedplate_store.readers import SpaceReaders
from bedplate_store.segments import write_segment
from bedplate_store.spaces import SpaceKey
from bedplate_store.writes import Writes
from bedplate_workers.handlers import Finish, result
from bedplate_workers.work import Worker

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
SPACE, OTHER = SpaceKey("core", 1, "item"), SpaceKey("core", 1, "user")
DIM = 64


def fill(folder: Path, leave: int = 0) -> Path:
    """Take all room of the file system but ``leave`` bytes; remove the file to give it back."""
    path = folder / "filler"
    found = os.statvfs(folder)
    with open(path, "wb") as file:
        file.write(b"x" * max(0, found.f_bavail * found.f_frsize - leave))
    return path


def database_in(folder: Path) -> Database:
    database = Database(f"sqlite:///{folder}/store.db")
    database.migrate()
    with database.write() as session:
        signature = SpaceSignature(dim=DIM, key_type="int64", entity="item", metric="l2")
        for key in (SPACE, OTHER):
            spaces.ensure_space(session, **key._asdict(), signature=signature, team="t", now=NOW)
    return database


def vectors(rows: int, seed: int) -> Any:
    return np.random.default_rng(seed).normal(size=(rows, DIM)).astype(np.float16)


def publish(database: Database, objects: ObjectStore, folder: Path, rows: int, seed: int) -> Any:
    content = vectors(rows, seed)
    part = write_segment(objects, keys=np.arange(rows), vectors=content, dtype="float16", key_type="int64")
    prepared = snapshots.prepare(
        database,
        objects,
        folder,
        SPACE,
        [part.digest],
        IndexSpecification(kind="hnsw"),
        covers_sequence=0,
    )
    with database.write() as session:
        snapshots.publish(session, prepared, objects=objects, job=None, now=NOW)
    return content


def files_of(folder: Path) -> set[str]:
    return {str(path) for path in folder.rglob("*") if path.is_file()}


def objects(small: Path, roomy: Path) -> None:
    store = LocalObjectStore(small / "objects")
    store.put("a", b"old")
    (roomy / "large").write_bytes(b"x" * (1 << 20))
    filler = fill(small)
    before = files_of(small)
    for write in (
        lambda: store.put("a", b"x" * (1 << 20)),
        lambda: store.put_file("c/d", roomy / "large"),
    ):
        with pytest.raises(StorageFull, match="free room there") as error:
            write()
        assert str(small) in error.value.detail
    assert files_of(small) == before, "nothing half-written"
    assert store.get("a") == b"old"
    filler.unlink()
    store.put_file("c/d", roomy / "large")
    assert store.size("c/d") == 1 << 20


def cache(small: Path, roomy: Path) -> None:
    database, remote = database_in(roomy), MemoryObjectStore()
    old = publish(database, remote, roomy / "builder", 1000, 1)
    readers = SpaceReaders(database, remote, small / "cache", refresh_seconds=0)
    assert (readers.get(*SPACE).lookup(np.arange(1000)).vectors == old).all()
    before = files_of(small)
    new = publish(database, remote, roomy / "builder", 9000, 2)
    filler = fill(small, leave=500_000)
    for _ in range(2):
        reader = readers.get(*SPACE)
        assert reader.snapshot == 1
        assert (reader.lookup(np.arange(1000)).vectors == old).all()
    with pytest.raises(StorageFull, match="cache"):
        readers.refresh_now(*SPACE)
    left = files_of(small) - before - {str(filler)}
    assert all(not Path(each).name.startswith(".") for each in left), "whole files only"
    remote.put("weights", b"x" * (1 << 20))
    with pytest.raises(StorageFull, match="checkpoints"):
        CheckpointCache(remote, small).fetch("core@1", "digest", [_checkpoint_file()])
    filler.unlink()
    assert (readers.get(*SPACE).lookup(np.arange(9000)).vectors == new).all()


def _checkpoint_file() -> Any:
    manifest = SimpleNamespace(name="model.safetensors", sha256=None)
    return SimpleNamespace(object_key="weights", manifest=manifest)


def index(small: Path, roomy: Path) -> None:
    """With whatever is left, down to the last page: the index is whole or there is none."""
    database, remote = database_in(roomy), MemoryObjectStore()
    publish(database, remote, roomy / "builder", 2000, 1)
    whole = max(len(remote.get(key)) for key in remote.list("indexes/"))
    full = 0
    for seed, leave in enumerate([0, 100_000, *range(whole - 8192, whole + 400_000, 4096 * 7)], start=2):
        content = vectors(2000, seed)
        part = write_segment(
            remote, keys=np.arange(2000), vectors=content, dtype="float16", key_type="int64"
        ).digest
        filler = fill(small, leave)
        try:
            prepared = snapshots.prepare(
                database, remote, small / "cache", SPACE, [part], IndexSpecification(kind="hnsw")
            )
        except StorageFull:
            full += 1
        else:
            assert prepared.index is not None
            assert (
                remote.size(f"indexes/{prepared.index.digest}/index.faiss") == prepared.index.bytes == whole
            )
        filler.unlink()
        assert list((small / "cache" / "building").glob("*")) == [], "nothing half-built is left"
        for path in files_of(small / "cache"):
            Path(path).unlink()
    assert full > 3


def spool(small: Path, _roomy: Path) -> None:
    writer = SpoolWriter(small / "spool")
    writer.append(b"first")
    (path,) = (small / "spool").iterdir()
    filler = fill(small)
    with pytest.raises(StorageFull, match="spool"):
        writer.append(b"x" * 100_000)
    assert path.read_bytes() == b"first"
    filler.unlink()
    writer.append(b"second")
    assert path.read_bytes() == b"firstsecond"


def metadata(small: Path, roomy: Path) -> None:
    database, store = database_in(small), LocalObjectStore(roomy / "objects")
    writes = Writes(database, store)
    writes.upsert(**SPACE._asdict(), keys=[1], vectors=vectors(1, 1), now=NOW)
    readers = SpaceReaders(database, store, roomy / "cache", refresh_seconds=0)
    filler = fill(small)
    failures, acknowledged = [], 1
    for key in range(2, 2000):
        try:
            writes.upsert(**SPACE._asdict(), keys=[key], vectors=vectors(1, key), now=NOW)
        except Exception as error:  # noqa: BLE001  # as the edge of the services does
            failures.append(problems.from_exception(error))
            if len(failures) == 3:
                break
        else:
            acknowledged = key
    assert [problems.status_of(failure) for failure in failures] == [507] * 3, failures
    assert {type(failure) for failure in failures} == {StorageFull}
    reader = readers.get(*SPACE)
    assert reader.sequence == acknowledged, "what was acknowledged is there, what was not is not"
    assert reader.lookup([acknowledged]).found.all()
    filler.unlink()
    answer = writes.upsert(**SPACE._asdict(), keys=[5000], vectors=vectors(1, 0), now=NOW)
    assert answer.sequence == acknowledged + 1
    writes.upsert(**OTHER._asdict(), keys=[1], vectors=vectors(1, 0), now=NOW)
    assert readers.get(*SPACE).lookup([1, acknowledged, 5000]).found.all()


def job(small: Path, roomy: Path) -> None:
    """The ledger remembers why the partition failed, and gives it another try."""
    database, store = database_in(roomy), LocalObjectStore(small / "objects")
    clock = SimpleNamespace(now=NOW)

    def write(_workplace: Any, claim: Any, _progress: Any) -> Finish:
        store.put(f"part-{claim.ordinal}", b"x" * (1 << 20))
        return result({})

    place: Any = SimpleNamespace(store=database, now=lambda: clock.now)
    worker = Worker(place, {("write", "write"): write}, owner="w", lease_seconds=30)
    with database.write() as session:
        made = jobs.create(
            session,
            kind="write",
            subject="s",
            team="t",
            params={},
            stages=[jobs.Stage("write", [jobs.PartitionSpec({}, 1)])],
            now=clock.now,
        )
    filler = fill(small)
    assert worker.work(f"{made.id}/0/0") == "failed"
    filler.unlink()
    clock.now += timedelta(hours=1)
    assert worker.work(f"{made.id}/0/0") == "done"
    with database.read() as session:
        assert jobs.get(session, made.id).state == "succeeded"
    assert store.size("part-0") == 1 << 20


SCENES: dict[str, Callable[[Path, Path], None]] = {
    each.__name__: each for each in (objects, cache, index, spool, metadata, job)
}

if __name__ == "__main__":
    SCENES[sys.argv[1]](Path(sys.argv[2]), Path(sys.argv[3]))
