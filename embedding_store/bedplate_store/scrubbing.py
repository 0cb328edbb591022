"""Scrubbing: every object that readers may open is read whole and compared with its digest.

Opening a large file looks at its size alone (:mod:`bedplate_store.mapping`); this finds what a disk has
changed under it since it was written.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import select

from bedplate.errors import NotFound, ObjectDamaged
from bedplate.segment_files import PACKED
from bedplate_store.database import Database
from bedplate_store.indexes import index_key
from bedplate_store.liveness import live_indexes, live_segments
from bedplate_store.mapping import sha256_file
from bedplate_store.objects import ObjectStore
from bedplate_store.packed_segments import is_packed
from bedplate_store.segment_files import MANIFEST, object_key, read_manifest
from bedplate_store.tables.records import LogSegmentRow

_RANGE_BYTES = 16 << 20


@dataclass(frozen=True, slots=True)
class Scrubbed:
    """What a scrub read, and the keys of the objects that are not what was written, or gone."""

    objects: int
    bytes: int
    damaged: list[str]
    missing: list[str]


def scrub(
    database: Database, objects: ObjectStore, *, now: datetime, progress: Callable[[int], None]
) -> Scrubbed:
    """Verify the segments and indexes of the snapshots readers see, the writes above them, and the log.

    Memory is bounded; ``progress`` is told how many objects are done. What is collected meanwhile may be
    told as missing: ask for it again.

    Raises:
        Unavailable: the object store cannot be read; nothing is known about the rest.
    """
    count, total = 0, 0
    damaged: list[str] = []
    missing: list[str] = []
    for key, sha256 in _expected(database, objects, now, damaged, missing):
        size, found = _digest(objects, key)
        if size is None:
            missing.append(key)
        elif found != sha256:
            damaged.append(key)
        count += 1
        total += size or 0
        progress(count)
    return Scrubbed(count, total, sorted(damaged), sorted(missing))


def _expected(
    database: Database, objects: ObjectStore, now: datetime, damaged: list[str], missing: list[str]
) -> Iterator[tuple[str, str]]:
    """(key, SHA-256) of every object; what a segment holds is in its manifest, which may itself be wrong."""
    with database.read() as session:
        segments = sorted(live_segments(session, now, timedelta(0)))
        indexes = sorted(live_indexes(session, now, timedelta(0)))
        logs = session.execute(select(LogSegmentRow.object_key, LogSegmentRow.sha256)).all()
    for digest in segments:
        if is_packed(objects, digest):
            yield object_key(digest, PACKED), digest
            continue
        try:
            _, files = read_manifest(objects, digest)
        except ObjectDamaged:
            damaged.append(object_key(digest, MANIFEST))
        except NotFound:
            missing.append(object_key(digest, MANIFEST))
        else:
            yield from ((object_key(digest, name), file.sha256) for name, file in files.items())
    yield from ((index_key(digest), digest) for digest in indexes)
    yield from ((key, sha256) for key, sha256 in logs)


def _digest(objects: ObjectStore, key: str) -> tuple[int | None, str]:
    path = objects.local_path(key)
    if path is not None:
        return path.stat().st_size, sha256_file(path)
    size = objects.size(key)
    digest = hashlib.sha256()
    for start in range(0, size or 0, _RANGE_BYTES):
        digest.update(objects.get_range(key, start, _RANGE_BYTES))
    return size, digest.hexdigest()
