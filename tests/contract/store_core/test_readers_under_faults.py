"""A space over a faulty object store: the new snapshot comes, or the old one stays; never a wrong vector."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from tests.contract.store_core.fault_proxy import FaultProxy, Kind

from bedplate.errors import BedplateError, ObjectDamaged, Unavailable
from bedplate.wire.registry import SpaceSignature
from bedplate.wire.store import IndexSpecification
from bedplate_store import snapshots, spaces
from bedplate_store.database import Database
from bedplate_store.objects import S3ObjectStore
from bedplate_store.readers import SpaceReader, SpaceReaders
from bedplate_store.segments import VectorArray, write_segment
from bedplate_store.spaces import SpaceKey
from bedplate_store.writes import Writes

SPACE = SpaceKey("core", 1, "item")
ROWS, DIM = 2000, 16
NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
FILES = {
    "manifest": r"segments/.*/manifest\.json$",
    "vectors": "segments/.*/vectors$",
    "keys": "segments/.*/keys$",
    "index": "indexes/",
}
FAULTS: list[Kind] = ["delay", "status_500", "cut", "cut_chunked", "flip", "reset"]
SECONDS = 1.5  # longer than the store's patience


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = Database(f"sqlite:///{tmp_path}/store.db")
    database.migrate()
    with database.write() as session:
        signature = SpaceSignature(dim=DIM, key_type="int64", entity="item", metric="l2")
        spaces.ensure_space(session, **SPACE._asdict(), signature=signature, team="t", now=NOW)
    yield database
    database.close()


@pytest.fixture
def publish(database: Database, store: S3ObjectStore, tmp_path: Path) -> Callable[[int], VectorArray]:
    """Publish a snapshot with vectors of a seed; returns them [ROWS, DIM]."""

    def publish(seed: int) -> VectorArray:
        vectors: VectorArray = np.random.default_rng(seed).normal(size=(ROWS, DIM)).astype(np.float16)
        part = write_segment(
            store, keys=np.arange(ROWS), vectors=vectors, dtype="float16", key_type="int64"
        ).digest
        specification = IndexSpecification(kind="hnsw")
        prepared = snapshots.prepare(
            database, store, tmp_path / "builder", SPACE, [part], specification, covers_sequence=seed
        )
        with database.write() as session:
            snapshots.publish(session, prepared, objects=store, job=None, now=NOW)
        return vectors

    return publish


def served(reader: SpaceReader) -> VectorArray:
    return reader.lookup(np.arange(ROWS)).vectors


@pytest.mark.parametrize("kind", FAULTS)
def test_each_file_spoiled_once_is_read_again(
    kind: Kind,
    publish: Callable[[int], VectorArray],
    store: S3ObjectStore,
    proxy: FaultProxy,
    database: Database,
    tmp_path: Path,
) -> None:
    vectors = publish(1)
    faults = [proxy.spoil(kind, path=path, times=1, seconds=SECONDS) for path in FILES.values()]
    reader = SpaceReaders(database, store, tmp_path / "cache").get(*SPACE)
    assert [fault.hits for fault in faults] == [1] * len(FILES)
    assert (served(reader) == vectors).all()
    nearest = reader.search(vectors[:5], 1).keys
    assert np.asarray(nearest)[:, 0].tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("kind", FAULTS)
@pytest.mark.parametrize("file", FILES)
def test_a_file_spoiled_for_good_leaves_the_old_snapshot_serving(
    kind: Kind,
    file: str,
    publish: Callable[[int], VectorArray],
    store: S3ObjectStore,
    proxy: FaultProxy,
    database: Database,
    tmp_path: Path,
) -> None:
    old = publish(1)
    cache = tmp_path / "cache"
    readers = SpaceReaders(database, store, cache, refresh_seconds=0)
    assert (served(readers.get(*SPACE)) == old).all()
    before = {path for path in cache.rglob("*") if path.is_file()}
    new = publish(2)
    proxy.spoil(kind, path=FILES[file], seconds=SECONDS)
    reader = readers.get(*SPACE)
    assert reader.snapshot == 1
    assert (served(reader) == old).all()
    expected: type[BedplateError] = ObjectDamaged if kind == "flip" else Unavailable
    with pytest.raises(expected):
        readers.refresh_now(*SPACE)
    with pytest.raises(expected):
        SpaceReaders(database, store, tmp_path / "fresh").get(*SPACE)
    for path in cache.rglob("*"):
        assert not path.is_file() or path in before or path.stat().st_size > 0
        assert not path.name.startswith("."), "nothing half-fetched"
    proxy.heal()
    reader = readers.get(*SPACE)
    assert reader.snapshot == 2
    assert (served(reader) == new).all()


def test_a_write_whose_segment_cannot_be_put_is_not_acknowledged(
    publish: Callable[[int], VectorArray],
    store: S3ObjectStore,
    proxy: FaultProxy,
    database: Database,
    tmp_path: Path,
) -> None:
    old = publish(1)
    readers = SpaceReaders(database, store, tmp_path / "cache", refresh_seconds=0)
    proxy.spoil("status_500", method="PUT")
    with pytest.raises(Unavailable):
        Writes(database, store).upsert(**SPACE._asdict(), keys=[0], vectors=old[:1] + 1, now=NOW)
    assert readers.get(*SPACE).sequence == 0
    assert (served(readers.get(*SPACE)) == old).all()
    proxy.heal()
    proxy.spoil("lost_answer", method="PUT", times=1)
    answer = Writes(database, store).upsert(**SPACE._asdict(), keys=[0], vectors=old[:1] + 1, now=NOW)
    assert answer.sequence == 1, "put twice, written once"
    assert (readers.get(*SPACE).lookup([0]).vectors == old[:1] + 1).all()
