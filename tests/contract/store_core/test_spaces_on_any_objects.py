"""The life of a space is the same on every object store."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from bedplate.errors import InternalError
from bedplate.wire.registry import SpaceSignature
from bedplate.wire.store import IndexSpecification
from bedplate_store import collection, compaction, snapshots, spaces
from bedplate_store.database import Database
from bedplate_store.objects import ObjectStore
from bedplate_store.readers import SpaceReaders
from bedplate_store.segments import write_segment
from bedplate_store.spaces import SpaceKey
from bedplate_store.writes import Writes

SPACE = SpaceKey("core", 1, "item")
ROWS, DIM = 1200, 8


@pytest.mark.parametrize("kind", ["flat", "hnsw"])
def test_embed_write_read_compact_collect(objects: ObjectStore, kind: str, tmp_path: Path) -> None:
    now = datetime.now(UTC)
    database = Database(f"sqlite:///{tmp_path}/store.db")
    database.migrate()
    with database.write() as session:
        signature = SpaceSignature(dim=DIM, key_type="string", entity="item", metric="l2")
        spaces.ensure_space(session, **SPACE._asdict(), signature=signature, team="t", now=now)
    keys = [f"film-{row}" for row in range(ROWS)]
    vectors = np.random.default_rng(0).normal(size=(ROWS, DIM)).astype(np.float16)
    partitions = [
        write_segment(
            objects, keys=keys[part::3], vectors=vectors[part::3], dtype="float16", key_type="string"
        ).digest
        for part in range(3)
    ]
    specification = IndexSpecification(kind=kind)
    prepared = snapshots.prepare(database, objects, tmp_path / "cache", SPACE, partitions, specification)
    with database.write() as session:
        snapshots.publish(session, prepared, objects=objects, job="embed", now=now)
    readers = SpaceReaders(database, objects, tmp_path / "cache", refresh_seconds=0)
    result = readers.get(*SPACE).lookup([*keys, "unknown"])
    assert (result.vectors[:ROWS] == vectors).all()
    assert result.found.tolist() == [True] * ROWS + [False]

    Writes(database, objects).upsert(**SPACE._asdict(), keys=["new"], vectors=vectors[:1], now=now)
    Writes(database, objects).delete(**SPACE._asdict(), keys=keys[:1], now=now)
    nearest = readers.get(*SPACE).search(vectors[:1], 3)
    assert "new" in nearest.keys[0]
    assert keys[0] not in nearest.keys[0]
    snapshot = compaction.compact(
        database,
        objects,
        tmp_path / "cache",
        **SPACE._asdict(),
        specification=specification,
        job=None,
        now=now,
    )
    assert (snapshot.snapshot, snapshot.rows) == (2, ROWS)

    later = now + timedelta(days=2)
    assert collection.collect(database, objects, now=later, grace=timedelta(days=3)).segments == 0
    collected = collection.collect(database, objects, now=later, grace=timedelta(days=1))
    indexes = 0 if kind == "flat" else 1  # a flat index is the segment itself
    assert (collected.segments, collected.indexes, collected.writes) == (6, indexes, 2)
    fresh = SpaceReaders(database, objects, tmp_path / "other-cache").get(*SPACE)
    assert np.array_equal(fresh.search(vectors[:1], 3).scores, nearest.scores)

    for key in list(objects.list("segments/")):
        objects.delete(key)
    with pytest.raises(InternalError, match="restore it"):
        SpaceReaders(database, objects, tmp_path / "third-cache").get(*SPACE)
    database.close()
