"""Merging of segments, streamed: memory does not grow with their rows."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from bedplate.errors import InvalidRequest
from bedplate.segment_files import ATTRIBUTES
from bedplate.stored_vectors import StoredRows
from bedplate_store.attributes import AttributesWriter, conformed, gathered, unified
from bedplate_store.column_writers import HashingFile, column_writer
from bedplate_store.key_runs import Stretch, common_ranges, slice_keys
from bedplate_store.keys import Keys, concatenate, sort_last_wins, take
from bedplate_store.mapping import sha256_file
from bedplate_store.objects import ObjectStore
from bedplate_store.packed_segments import is_packed
from bedplate_store.segment_files import (
    KEY_INDEX,
    MANIFEST,
    FileInfo,
    SegmentInfo,
    describe,
    object_key,
    write_index,
)
from bedplate_store.segments import Segment, open_segment, write_segment

_KEYS_AT_ONCE = 1 << 16
_VECTOR_BYTES_AT_ONCE = 32 << 20


def merge_segments(
    objects: ObjectStore,
    cache_dir: Path,
    digests: Sequence[str],
    *,
    progress: Callable[[int], None] = lambda _rows: None,
    keys_at_once: int = _KEYS_AT_ONCE,
) -> SegmentInfo:
    """Fold segments, oldest first, into one: the newest row of each key wins, deleted keys and tombstones go.

    The segments are walked side by side, a range of about ``keys_at_once`` keys at a time; stretches that one
    segment has to itself, as the partitions of an embedding do, are copied as they are. The result depends on
    nothing but the content. ``progress`` is told how many rows are written, and may raise to stop.

    Raises:
        InvalidRequest: no segments, or segments of different dimension, dtype or key type.
    """
    segments = [open_segment(objects, digest, cache_dir) for digest in digests]
    shapes = {(each.info.key_type, each.info.dim, each.info.dtype) for each in segments}
    if len(shapes) != 1:
        raise InvalidRequest(f"segments merge only when they are alike; these are {sorted(shapes)}.")
    if len(segments) == 1 and segments[0].info.tombstones == 0 and not is_packed(objects, digests[0]):
        return segments[0].info
    building = cache_dir / "building"
    building.mkdir(parents=True, exist_ok=True)
    begin = building / f"merge-{uuid.uuid4().hex}"
    try:
        return _put(objects, segments[0].info, _write(begin, segments, keys_at_once, progress))
    finally:
        for left in building.glob(f"{begin.name}*"):
            left.unlink()


@dataclass(frozen=True, slots=True)
class _Written:
    """Files on this machine, by their names in the segment."""

    rows: int
    files: dict[str, tuple[Path, FileInfo]]


def _write(
    begin: Path, segments: Sequence[Segment], keys_at_once: int, progress: Callable[[int], None]
) -> _Written:
    """The columns of the merged segment in files whose names begin with ``begin``."""
    keys_path, vectors_path = (begin.with_name(f"{begin.name}-{name}") for name in ("keys", "vectors"))
    attributes_path = begin.with_name(f"{begin.name}-{ATTRIBUTES}")
    schema = unified([segment.attributes for segment in segments])
    rows = 0
    with ExitStack() as opened:
        column = opened.enter_context(column_writer(keys_path, segments[0].info.key_type))
        file = opened.enter_context(HashingFile(vectors_path))
        attributes = (
            opened.enter_context(AttributesWriter(str(attributes_path), schema)) if len(schema) else None
        )
        for keys, chunks, attributes_in in _survivors(segments, keys_at_once):
            column.append(keys)
            rows += len(keys)
            for vectors in chunks:
                file.write(vectors.data.cast("B"))
            if attributes is not None:
                attributes.append(attributes_in(schema))
            progress(rows)
        files = {"keys": (keys_path, column.finish()), "vectors": (vectors_path, file.finish())}
    if attributes is not None:
        info = FileInfo(attributes_path.stat().st_size, sha256_file(attributes_path))
        files[ATTRIBUTES] = (attributes_path, info)
    if segments[0].info.key_type == "int64":
        index_path = begin.with_name(f"{begin.name}-{KEY_INDEX}")
        index = write_index(keys_path, index_path)
        if index is not None:
            files[KEY_INDEX] = (index_path, index)
    return _Written(rows, files)


def _put(objects: ObjectStore, like: SegmentInfo, written: _Written) -> SegmentInfo:
    key_type, dim, dtype = like.key_type, like.dim, like.dtype
    if written.rows == 0:
        return write_segment(objects, keys=[], vectors=np.empty((0, dim)), dtype=dtype, key_type=key_type)
    infos = {name: info for name, (_, info) in written.files.items()}
    info, manifest = describe(infos, written.rows, 0, key_type, dim, dtype)
    for name, (path, _) in written.files.items():
        objects.put_file(object_key(info.digest, name), path)
    objects.put(object_key(info.digest, MANIFEST), manifest)  # last, as in write_segment
    return info


def _survivors(
    segments: Sequence[Segment], keys_at_once: int
) -> Iterator[tuple[Keys, Iterator[StoredRows], Callable[[pa.Schema], pa.Table]]]:
    """The keys that live after all segments, in ascending ranges, their vectors in bounded chunks, and how to
    have their attributes."""
    tables = [segment.attributes for segment in segments]
    # Run 2i holds the keys of segment i, run 2i + 1 its tombstones.
    runs = [keys for segment in segments for keys in (segment.keys, segment.tombstones)]
    key_type = segments[0].info.key_type
    for stretches in common_ranges(runs, keys_at_once):
        parts = [slice_keys(runs[each.run], each.start, each.end) for each in stretches]
        if len(stretches) == 1:
            (alone,) = stretches
            if alone.run % 2 == 0:
                table = tables[alone.run // 2]
                table = None if table is None else table.slice(alone.start, len(alone))
                yield (
                    parts[0],
                    _copied(segments[alone.run // 2], alone),
                    partial(conformed, table, rows=len(alone)),
                )
            continue
        keys = concatenate(parts, key_type)
        source = np.repeat([each.run // 2 for each in stretches], [len(each) for each in stretches])
        row = np.concatenate([_rows(each) for each in stretches])
        newest = sort_last_wins(keys)
        newest = newest[row[newest] >= 0]
        source, row = source[newest], row[newest]
        yield (
            take(keys, newest),
            _gathered(segments, source, row),
            partial(gathered, tables, source=source, row=row),
        )


def _rows(stretch: Stretch) -> NDArray[np.int64]:
    """The rows of a segment's keys; -1 for tombstones, which have none."""
    return np.full(len(stretch), -1) if stretch.run % 2 else np.arange(stretch.start, stretch.end)


def _copied(segment: Segment, stretch: Stretch) -> Iterator[StoredRows]:
    step = _chunk_rows(segment.info)
    for start in range(stretch.start, stretch.end, step):
        yield segment.scan[start : min(start + step, stretch.end)]


def _gathered(
    segments: Sequence[Segment], source: NDArray[np.int64], row: NDArray[np.int64]
) -> Iterator[StoredRows]:
    """The vectors at (source, row)."""
    info = segments[0].info
    step = _chunk_rows(info)
    for start in range(0, len(row), step):
        chunk = slice(start, start + step)
        vectors = info.storage.empty(len(row[chunk]))
        for ordinal in np.unique(source[chunk]):
            mine = source[chunk] == ordinal
            vectors[mine] = segments[ordinal].scan[row[chunk][mine]]
        yield vectors


def _chunk_rows(info: SegmentInfo) -> int:
    return max(1, _VECTOR_BYTES_AT_ONCE // info.storage.row_bytes)
