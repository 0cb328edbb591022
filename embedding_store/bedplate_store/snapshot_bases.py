"""The base of a snapshot: one segment that holds everything a space has up to some write."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
from sqlalchemy import select

from bedplate.errors import Conflict
from bedplate.full_disks import named_full_disk
from bedplate.wire.registry import Dtype, KeyType, Metric
from bedplate_store.database import Database, ReadSession
from bedplate_store.merging import merge_segments
from bedplate_store.objects import ObjectStore
from bedplate_store.segments import SegmentInfo, write_segment
from bedplate_store.spaces import SpaceKey, space_row
from bedplate_store.tables.spaces import SnapshotRow, SpaceRow, WriteRow


@dataclass(frozen=True, slots=True)
class Base:
    """A merged segment, durable but not yet seen by anybody.

    It holds every write up to ``covers_sequence`` and is meant to follow snapshot ``expected_snapshot``.
    """

    space: SpaceKey
    segment: SegmentInfo
    metric: Metric
    covers_sequence: int
    expected_snapshot: int | None

    def to_json(self) -> dict[str, Any]:
        """As a JSON document, so that one task may merge and others index."""
        return {
            "space": str(self.space),
            "segment": self.segment.to_json(),
            "metric": self.metric,
            "covers_sequence": self.covers_sequence,
            "expected_snapshot": self.expected_snapshot,
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Base:
        return cls(
            space=SpaceKey.parse(document["space"]),
            segment=SegmentInfo.from_json(document["segment"]),
            metric=document["metric"],
            covers_sequence=document["covers_sequence"],
            expected_snapshot=document["expected_snapshot"],
        )


def fold(
    database: Database,
    objects: ObjectStore,
    cache_dir: Path,
    space: SpaceKey,
    partition_digests: Sequence[str],
    *,
    covers_sequence: int | None = None,
    progress: Callable[[int], None] = lambda _rows: None,
) -> Base:
    """Fold the present snapshot, writes and newly embedded partitions into one base.

    What wins, oldest to newest: the present snapshot, the writes up to ``covers_sequence``, the partitions,
    and the writes after it. So pass the space's sequence as it was when the embedding began: an upsert made
    meanwhile is newer than the vector the model computed, and rows that are not embedded at all stay.
    ``covers_sequence`` None: only what the present snapshot holds. ``progress`` is told how many rows are
    written. Slow, holds no transaction, changes nothing that readers see; running it twice is harmless.

    Raises:
        NotFound: no such space, or a segment is gone.
        Conflict: ``covers_sequence`` is so old that writes after it were compacted and collected.
        StorageFull: no room in ``cache_dir`` or in the object store; nothing is left there.
    """
    plan = _plan(database, space, list(partition_digests), covers_sequence)
    with named_full_disk(cache_dir):
        if plan.digests:
            segment = merge_segments(objects, cache_dir, plan.digests, progress=progress)
        else:
            segment = write_segment(
                objects,
                keys=[],
                vectors=np.empty((0, plan.dim), np.float32),
                dtype=plan.dtype,
                key_type=plan.key_type,
            )
    return Base(space, segment, plan.metric, plan.covers_sequence, plan.expected_snapshot)


@dataclass(frozen=True, slots=True)
class _Plan:
    """Which segments to fold, oldest first, and what the result will stand for."""

    digests: list[str]
    covers_sequence: int
    expected_snapshot: int | None
    dim: int
    dtype: Dtype
    key_type: KeyType
    metric: Metric


def _plan(database: Database, key: SpaceKey, partitions: list[str], covers_sequence: int | None) -> _Plan:
    with database.read() as session:
        space = space_row(session, key)
        current = _current(session, space)
        base = [] if current is None else [each["digest"] for each in current.segments]
        covered = 0 if current is None else current.covers_sequence
        through = covered if covers_sequence is None else min(covers_sequence, space.sequence)
        older = _writes_between(session, space.id, covered, through)
        # A compaction may have covered writes that are newer than the partitions: they go on top again.
        newer = _writes_between(session, space.id, through, covered)
    if partitions and len(newer) < covered - through:
        raise Conflict(
            f"{key} has compacted and collected writes after sequence {through}, where this embedding began: "
            "embed again."
        )
    return _Plan(
        digests=base + older + partitions + newer,
        covers_sequence=max(covered, through),
        expected_snapshot=space.snapshot,
        dim=space.dim,
        dtype=cast(Dtype, space.dtype),
        key_type=cast(KeyType, space.key_type),
        metric=cast(Metric, space.metric),
    )


def _writes_between(session: ReadSession, space_id: int, after: int, through: int) -> list[str]:
    query = (
        select(WriteRow.digest)
        .where(WriteRow.space_id == space_id, WriteRow.sequence > after, WriteRow.sequence <= through)
        .order_by(WriteRow.sequence)
    )
    return list(session.scalars(query))


def _current(session: ReadSession, space: SpaceRow) -> SnapshotRow | None:
    return None if space.snapshot is None else session.get(SnapshotRow, (space.id, space.snapshot))
