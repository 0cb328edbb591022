"""The steps of :mod:`benchmarks.large_space`, each run in a process of its own.

A JSON document comes in, another goes out.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bedplate.wire.registry import SpaceSignature
from bedplate.wire.store import IndexSpecification
from bedplate_store import base_indexes, snapshot_bases, snapshots, spaces
from bedplate_store.base_indexes import IndexFile
from bedplate_store.database import Database
from bedplate_store.indexes import index_key
from bedplate_store.objects import LocalObjectStore
from bedplate_store.readers import SpaceReader, SpaceReaders
from bedplate_store.segments import open_segment, write_segment
from bedplate_store.snapshot_bases import Base
from bedplate_store.snapshots import PreparedSnapshot
from bedplate_store.spaces import SpaceKey
from benchmarks import bare_faiss
from benchmarks.memory import PeakAnonymous, resident_bytes

SPACE = SpaceKey("bench", 1, "scale")
DIM = 128
SPECIFICATION = IndexSpecification(kind="ivf", recall_target=0.95)
ROWS_PER_SEGMENT = 1 << 17
_ROWS_PER_CLUSTER = 500
_SPREAD = 0.5
_QUERIES = 64
_LOOKUP_KEYS = 100


class Place:
    """The store of one run."""

    def __init__(self, folder: Path) -> None:
        self.database = Database(f"sqlite:///{folder / 'store.sqlite'}")
        self.objects = LocalObjectStore(folder / "objects")
        self.cache = folder / "cache"


def segment(place: Place, rows: int, first: int, **_: Any) -> dict[str, Any]:
    """Write one partition as an embed job does: sorted keys with gaps, clustered unit vectors in float16."""
    count = min(ROWS_PER_SEGMENT, rows - first)
    centres = np.random.default_rng(0).standard_normal((max(1, rows // _ROWS_PER_CLUSTER), DIM), np.float32)
    random = np.random.default_rng([1, first])
    vectors = centres[random.integers(0, len(centres), count)]
    vectors += _SPREAD * random.standard_normal((count, DIM), np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    keys = first * 1_000 + np.sort(random.choice(ROWS_PER_SEGMENT * 500, count, replace=False))
    info = write_segment(place.objects, keys=keys, vectors=vectors, dtype="float16", key_type="int64")
    return {"segment": info.digest}


def merge(place: Place, segments: list[str], **_: Any) -> dict[str, Any]:
    place.database.migrate()
    with place.database.write() as session:
        spaces.ensure_space(
            session,
            foundation=SPACE.foundation,
            version=SPACE.version,
            space=SPACE.space,
            signature=SpaceSignature(dim=DIM, dtype="float16", metric="inner_product", key_type="int64"),
            team="benchmarks",
            now=datetime.now(UTC),
        )
    return {
        "base": snapshot_bases.fold(place.database, place.objects, place.cache, SPACE, segments).to_json()
    }


def train(place: Place, base: dict[str, Any], **_: Any) -> dict[str, Any]:
    trained = base_indexes.train_index(place.objects, place.cache, Base.from_json(base), SPECIFICATION)
    assert trained is not None
    return {"trained": trained.to_json()}


def add(
    place: Place, base: dict[str, Any], trained: dict[str, Any], part: int, parts: int, **_: Any
) -> dict[str, Any]:
    merged = Base.from_json(base)
    start, stop = base_indexes.part_rows(merged.segment.rows, part, parts)
    made = base_indexes.add_part(
        place.objects, place.cache, merged, IndexFile.from_json(trained), start, stop
    )
    return {"part": made.to_json()}


def assemble(place: Place, base: dict[str, Any], parts: list[dict[str, Any]], **_: Any) -> dict[str, Any]:
    merged, files = Base.from_json(base), [IndexFile.from_json(part) for part in parts]
    index = base_indexes.index_base(place.objects, place.cache, merged, SPECIFICATION, files)
    return {"prepared": PreparedSnapshot.of(merged, index, SPECIFICATION).to_json()}


def publish(place: Place, prepared: dict[str, Any], **_: Any) -> dict[str, Any]:
    with place.database.write() as session:
        snapshots.publish(
            session,
            PreparedSnapshot.from_json(prepared),
            objects=place.objects,
            job=None,
            now=datetime.now(UTC),
        )
    return {}


def serve(place: Place, keys: list[int], touch: bool, **_: Any) -> dict[str, Any]:
    """Open the space and answer one lookup and one search; with ``touch``, then use every page of it."""
    before = resident_bytes()
    began = time.perf_counter()
    reader = SpaceReaders(place.database, place.objects, place.cache).get(*SPACE)
    found = reader.lookup(np.array(keys, np.int64))
    assert found.found.all()
    looked_up = time.perf_counter() - began
    answer = reader.search(found.vectors[:1].astype(np.float32), 10)
    assert answer.keys[0, 0] == keys[0]
    seconds = time.perf_counter() - began
    if touch:
        _use_all(reader)
    return {
        "lookup_seconds": looked_up,
        "seconds": seconds,
        "before": before,
        "resident": resident_bytes(),
    }


def _use_all(reader: SpaceReader) -> None:
    """Searches that probe every list, and lookups of every 8th key, which touch every page."""
    assert reader.index is not None
    keys = reader.base.column.keys
    for start in range(0, len(keys), 80_000):
        assert reader.lookup(np.asarray(keys[start : start + 80_000 : 8])).found.all()
    queries = reader.base.vectors[:: max(1, len(keys) // _QUERIES)][:_QUERIES].astype(np.float32)
    reader.search(queries, 10, ef=int(reader.index.parameters["lists"]))


def bare_open(place: Place, prepared: dict[str, Any], **_: Any) -> dict[str, Any]:
    """What the first answer costs without anything around it: files mapped, FAISS's reader, rows gathered."""
    made = PreparedSnapshot.from_json(prepared)
    assert made.index is not None
    files = place.objects.root / "segments" / made.segment.digest
    began = time.perf_counter()
    vectors = np.memmap(files / "vectors", np.float16, "r", shape=(made.segment.rows, DIM))
    index = bare_faiss.faiss.read_index(
        str(place.objects.root / index_key(made.index.digest)), bare_faiss.faiss.IO_FLAG_MMAP_IFC
    )
    rows = np.linspace(0, made.segment.rows - 1, _LOOKUP_KEYS).astype(np.int64)
    queries = np.ascontiguousarray(vectors[rows][:1], np.float32)
    index.nprobe = int(made.index.parameters["ef"])
    index.search(queries, 10)
    return {"seconds": time.perf_counter() - began}


def faiss_build(place: Place, base: dict[str, Any], prepared: dict[str, Any], **_: Any) -> dict[str, Any]:
    """FAISS by itself: as many training rows, all rows added in one go, everything in memory before."""
    made, merged = PreparedSnapshot.from_json(prepared), Base.from_json(base)
    assert made.index is not None
    opened = open_segment(place.objects, merged.segment.digest, place.cache)
    vectors = opened.scan.astype(np.float32)
    lists = int(made.index.parameters["lists"])
    training = vectors[:: max(1, len(vectors) // (lists * 64))]
    began = time.perf_counter()
    bare_faiss.build(vectors, training, str(made.index.parameters["description"]), bare_faiss.ALL_THREADS)
    return {"seconds": time.perf_counter() - began}


def raw_write(place: Place, bytes_: int, **_: Any) -> dict[str, Any]:
    """As many bytes written and synced."""
    block: NDArray[np.uint8] = np.zeros(1 << 24, np.uint8)
    path = place.cache / "raw"
    began = time.perf_counter()
    with open(path, "wb") as file:
        for start in range(0, bytes_, len(block)):
            file.write(block[: bytes_ - start].data)
        file.flush()
        os.fsync(file.fileno())
    seconds = time.perf_counter() - began
    path.unlink()
    return {"seconds": seconds}


STEPS: dict[str, Callable[..., dict[str, Any]]] = {
    step.__name__: step
    for step in (segment, merge, train, add, assemble, publish, serve, bare_open, faiss_build, raw_write)
}


def main() -> None:
    given = json.loads(sys.stdin.read())
    place = Place(Path(given.pop("folder")))
    step = STEPS[given.pop("step")]
    with PeakAnonymous() as peak:
        began = time.perf_counter()
        answer = step(place, **given)
        step_seconds = time.perf_counter() - began
    place.database.close()
    print(json.dumps({"step_seconds": step_seconds, "peak_anonymous_bytes": peak.bytes, **answer}))


if __name__ == "__main__":
    main()
