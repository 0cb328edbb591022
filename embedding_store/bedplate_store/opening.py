"""Opening a snapshot: its files here, mapped, and, if there is time, warm before the first request."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
from numpy.typing import NDArray

from bedplate.wire.registry import Dtype, KeyType, Metric
from bedplate_store.filters import FilterCache
from bedplate_store.indexes import IndexDocument, VectorIndex, index_key, open_index
from bedplate_store.mapping import local_file
from bedplate_store.objects import ObjectStore
from bedplate_store.overlay import Overlay
from bedplate_store.segments import Segment, open_segment
from bedplate_store.space_reader import SpaceReader
from bedplate_store.space_states import SpaceState
from bedplate_store.spaces import SpaceKey
from bedplate_store.tables.spaces import SnapshotRow

WARM_BYTES_MAX = 4 << 30
"""More is not read ahead: it would push out of memory what is being served."""
STEP_BYTES = 8 << 20
STEP_WRITES = 128
_CHUNK_BYTES = 1 << 20
_PAGE_BYTES = 4096
_QUERIES = 4


@dataclass(frozen=True, slots=True)
class OpenSnapshot:
    """A snapshot's files, mapped; number 0 and nothing where only writes exist.

    Attributes:
        digests: of its segment and index.
        files: on this machine, those first that every request needs.
    """

    number: int
    base: Segment | None = None
    index: VectorIndex | None = None
    digests: frozenset[str] = frozenset()
    files: tuple[Path, ...] = ()


def open_snapshot(
    objects: ObjectStore, cache_dir: Path, snapshot: SnapshotRow | None, metric: Metric
) -> OpenSnapshot:
    """Fetch what is not on this machine, verify it, map it.

    Raises:
        NotFound: an object is gone.
        InternalError: an object is damaged.
    """
    if snapshot is None:
        return OpenSnapshot(0)
    base = open_segment(objects, snapshot.segments[0]["digest"], cache_dir)
    digests, files = [snapshot.segments[0]["digest"]], _files(base)
    document = IndexDocument.flat(base.info.rows)
    if snapshot.index is not None:
        document = IndexDocument.from_json(snapshot.index)
    paths = [
        local_file(objects, index_key(digest), cache_dir, bytes_=size, sha256=digest)
        for digest, size in document.files
    ]
    digests += [digest for digest, _ in document.files]
    index = open_index(paths, document, base, metric)
    return OpenSnapshot(snapshot.number, base, index, frozenset(digests), (*paths, *files))


def reader_of(
    key: SpaceKey,
    state: SpaceState,
    opened: OpenSnapshot,
    objects: ObjectStore,
    cache_dir: Path,
    filters: FilterCache | None = None,
) -> SpaceReader:
    """A reader of ``opened``, which is the state's snapshot, with the writes above it."""
    row = state.row
    dtype, key_type = cast(Dtype, row.dtype), cast(KeyType, row.key_type)
    writes = [open_segment(objects, digest, cache_dir) for digest in state.writes]
    return SpaceReader(
        space=key,
        dim=row.dim,
        dtype=dtype,
        metric=cast(Metric, row.metric),
        key_type=key_type,
        snapshot=opened.number,
        sequence=row.sequence,
        base=opened.base,
        index=opened.index,
        overlay=Overlay.empty(key_type, row.dim, dtype, opened.base).extended(writes),
        digests=opened.digests,
        filters=filters,
    )


def extended(reader: SpaceReader, state: SpaceState, objects: ObjectStore, cache_dir: Path) -> SpaceReader:
    """``reader`` one step further: with some of the writes that it lacks on top, oldest first, still on its
    own snapshot; itself if they are gone.

    A step ends at ``STEP_BYTES`` or ``STEP_WRITES``, so that a write is shown without waiting for all that
    came after it: a reader that took everything at once would be further behind after each refresh.
    """
    if not state.behind:
        return reader
    writes: list[Segment] = []
    for digest in state.behind[:STEP_WRITES]:
        writes.append(open_segment(objects, digest, cache_dir))
        if sum(write.vectors.nbytes for write in writes) >= STEP_BYTES:
            break
    whole = len(writes) == len(state.behind)
    return SpaceReader(
        space=reader.space,
        dim=reader.dim,
        dtype=reader.dtype,
        metric=reader.metric,
        key_type=reader.key_type,
        snapshot=reader.snapshot,
        sequence=state.row.sequence if whole else reader.sequence + len(writes),
        base=reader.base,
        index=reader.index,
        overlay=reader.overlay.extended(writes),
        digests=reader.digests,
        filters=reader.filters,
    )


def warm(opened: OpenSnapshot, stopped: threading.Event) -> None:
    """Bring the files into the page cache and their pages into this process, and search once.

    The requests being answered meanwhile come first: whatever takes long lets go of Python's lock, in steps
    of 1 MiB, each followed by a pause as long as the step took. Ends early when ``stopped`` is set.
    """
    left = WARM_BYTES_MAX
    for path in opened.files:
        for read in _paced(_read(path, left), stopped):
            left -= read
    base = opened.base
    if base is None or base.info.rows == 0:
        return
    pages = base.vectors.reshape(-1).view(np.uint8)[:WARM_BYTES_MAX]
    for _ in _paced(_touch(pages), stopped):
        pass
    if opened.index is not None and opened.index.kind != "flat" and not stopped.is_set():
        opened.index.search(base.info.storage.decode(base.vectors[:_QUERIES], "float32"), 10)


def _files(base: Segment) -> list[Path]:
    """The segment's files, small ones first: every request needs keys, and few of the vectors."""
    if base.vectors_path is None:
        return []
    return sorted(base.vectors_path.parent.iterdir(), key=lambda path: path.stat().st_size)


def _read(path: Path, most: int) -> Iterator[int]:
    """Read a file's first bytes and throw them away; gives how many each step read."""
    scratch = bytearray(_CHUNK_BYTES)
    with open(path, "rb", buffering=0) as file:
        while most > 0 and (read := file.readinto(scratch)):
            most -= read
            yield read


def _touch(data: NDArray[np.uint8]) -> Iterator[int]:
    """Read one byte of each page."""
    step = 4 * _CHUNK_BYTES  # NumPy keeps Python's lock for a few hundred numbers and less
    for start in range(0, len(data), step):
        yield int(data[start : start + step : _PAGE_BYTES].sum())


def _paced(steps: Iterator[int], stopped: threading.Event) -> Iterator[int]:
    """The steps, with a pause after each as long as it took."""
    began = time.monotonic()
    for step in steps:
        yield step
        if stopped.wait(time.monotonic() - began):
            return
        began = time.monotonic()
