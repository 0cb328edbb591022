"""The index over a base, in steps for several machines: train once, add rows in parts, assemble.

Each step leaves one content-addressed file among the indexes, or, where a disk is full, nothing, and raises
StorageFull. The result is byte for byte that of one process doing everything, however the rows were cut and
in whatever order the parts were finished. ``centroids`` is where rows are compared with those of inverted
lists; None: in the index itself. Where it is a GPU in some processes only, bytes may differ by its rounding.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bedplate.full_disks import named_full_disk
from bedplate.wire.store import IndexSpecification
from bedplate_store.indexes import CentroidSearch, IndexDocument, index_key
from bedplate_store.indexes.building import add_rows, build_index, first_kind, recipe, train
from bedplate_store.mapping import local_file, sha256_file
from bedplate_store.objects import ObjectStore
from bedplate_store.segments import Segment, open_segment
from bedplate_store.snapshot_bases import Base

ROWS_PER_PART = 1 << 18
"""Some seconds of work for a core, and what a killed worker loses."""
PARTS_MAX = 4_096


@dataclass(frozen=True, slots=True)
class IndexFile:
    """A trained index or a part of one; it lies under :func:`index_key`, too."""

    digest: str
    bytes: int

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> IndexFile:
        return cls(document["digest"], document["bytes"])


def has_parts(specification: IndexSpecification, rows: int) -> bool:
    """Whether the index of so many rows is made of parts: inverted lists are, graphs and scans are not."""
    return first_kind(specification, rows) == "ivf"


def part_count(rows: int) -> int:
    """In how many parts so many rows are worth adding."""
    return min(-(-rows // ROWS_PER_PART), PARTS_MAX)


def part_rows(rows: int, part: int, parts: int) -> tuple[int, int]:
    """First row and end of part ``part`` of ``parts``."""
    return rows * part // parts, rows * (part + 1) // parts


def train_index(
    objects: ObjectStore,
    cache_dir: Path,
    base: Base,
    specification: IndexSpecification,
    *,
    seed: int = 0,
    centroids: CentroidSearch | None = None,
) -> IndexFile | None:
    """Train the inverted lists of the base; None: it has become one that is not indexed by them."""
    if not has_parts(specification, base.segment.rows):
        return None
    path = _new_file(cache_dir, "trained")
    how = recipe("ivf", base.segment.rows, base.segment.dtype)

    def write() -> None:
        segment = _open(objects, cache_dir, base)
        train(segment, how, base.metric, path, seed=seed, centroids=centroids)

    return _kept(objects, path, write)


def add_part(
    objects: ObjectStore,
    cache_dir: Path,
    base: Base,
    trained: IndexFile,
    start: int,
    stop: int,
    *,
    progress: Callable[[int], None] = lambda _rows: None,
    centroids: CentroidSearch | None = None,
) -> IndexFile:
    """A copy of the trained index with the base's rows ``[start, stop)`` in it.

    ``progress`` is told how many of them are added, and may raise to stop.
    """
    path = _new_file(cache_dir, "part")
    segment, lists = _open(objects, cache_dir, base), _local(objects, cache_dir, trained)
    return _kept(
        objects,
        path,
        lambda: add_rows(segment, lists, path, start, stop, progress=progress, centroids=centroids),
    )


def index_base(
    objects: ObjectStore,
    cache_dir: Path,
    base: Base,
    specification: IndexSpecification,
    parts: Sequence[IndexFile] = (),
    *,
    seed: int = 0,
    centroids: CentroidSearch | None = None,
) -> IndexDocument:
    """The index of the base: assembled from ``parts``, or built here and now; tuned and measured.

    ``parts`` hold all rows, in order, equally many for each shard. Where ``auto`` finds that inverted lists
    do not suit the vectors, the graph is built here: one grows row by row and is not made of parts.
    """
    built = build_index(
        _open(objects, cache_dir, base),
        specification,
        base.metric,
        directory=cache_dir / "building",
        seed=seed,
        parts=[_local(objects, cache_dir, part) for part in parts],
        centroids=centroids,
    )
    try:
        with named_full_disk(cache_dir):
            for (digest, _), path in zip(built.document.files, built.paths, strict=True):
                objects.put_file(index_key(digest), path)
    finally:
        built.remove()
    return built.document


def _open(objects: ObjectStore, cache_dir: Path, base: Base) -> Segment:
    return open_segment(objects, base.segment.digest, cache_dir)


def _local(objects: ObjectStore, cache_dir: Path, file: IndexFile) -> Path:
    return local_file(objects, index_key(file.digest), cache_dir, bytes_=file.bytes, sha256=file.digest)


def _new_file(cache_dir: Path, name: str) -> Path:
    path = cache_dir / "building" / f"{name}-{uuid.uuid4().hex}.faiss"
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def _kept(objects: ObjectStore, path: Path, write: Callable[[], None]) -> IndexFile:
    """What ``write`` leaves at ``path``, stored."""
    try:
        with named_full_disk(path.parent):
            write()
            file = IndexFile(sha256_file(path), path.stat().st_size)
            objects.put_file(index_key(file.digest), path)
    finally:
        path.unlink(missing_ok=True)
    return file
