"""Snapshots: the immutable set of segments and index that readers of a space see, published atomically.

Publishing is cut in two: :func:`prepare` does the slow work and touches nothing that anybody sees,
:func:`publish` swaps one number in a transaction of a few milliseconds, compare-and-swap.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import func, select

from bedplate.errors import Conflict, SnapshotMoved
from bedplate.wire.store import Compression, IndexSpecification, Snapshot
from bedplate_store.base_indexes import index_base
from bedplate_store.compression import measure
from bedplate_store.database import Database, ReadSession, WriteSession
from bedplate_store.indexes import CentroidSearch, IndexDocument, index_key
from bedplate_store.liveness import hold_collection
from bedplate_store.objects import ObjectStore
from bedplate_store.segments import (
    SegmentInfo,
    segment_is_whole,
)
from bedplate_store.snapshot_bases import Base, fold
from bedplate_store.spaces import SpaceKey, space_row
from bedplate_store.tables.spaces import SnapshotRow, SpaceRow, WriteRow


@dataclass(frozen=True, slots=True)
class PreparedSnapshot:
    """A base segment and its index, durable but not yet seen by anybody.

    It holds every write up to ``covers_sequence`` and is meant to follow snapshot ``expected_snapshot``.
    """

    space: SpaceKey
    segment: SegmentInfo
    index: IndexDocument | None
    covers_sequence: int
    expected_snapshot: int | None
    specification: IndexSpecification | None
    compression: Compression | None = None

    @classmethod
    def of(
        cls,
        base: Base,
        index: IndexDocument | None,
        specification: IndexSpecification | None,
        compression: Compression | None = None,
    ) -> PreparedSnapshot:
        return cls(
            base.space,
            base.segment,
            index,
            base.covers_sequence,
            base.expected_snapshot,
            specification,
            compression,
        )

    @property
    def digest(self) -> str:
        """SHA-256 over the digests of segment and index: equal content, equal digest."""
        parts = [self.segment.digest, "" if self.index is None else self.index.digest]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()

    def to_json(self) -> dict[str, Any]:
        """As a JSON document, so that one task may prepare and another publish."""
        return {
            "space": str(self.space),
            "segment": self.segment.to_json(),
            "index": None if self.index is None else self.index.to_json(),
            "covers_sequence": self.covers_sequence,
            "expected_snapshot": self.expected_snapshot,
            "specification": None if self.specification is None else self.specification.model_dump(),
            "compression": None if self.compression is None else self.compression.model_dump(),
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> PreparedSnapshot:
        index, specification = document["index"], document["specification"]
        compression = document["compression"]
        return cls(
            space=SpaceKey.parse(document["space"]),
            segment=SegmentInfo.from_json(document["segment"]),
            index=None if index is None else IndexDocument.from_json(index),
            covers_sequence=document["covers_sequence"],
            expected_snapshot=document["expected_snapshot"],
            specification=None if specification is None else IndexSpecification.model_validate(specification),
            compression=None if compression is None else Compression.model_validate(compression),
        )


def prepare(
    database: Database,
    objects: ObjectStore,
    cache_dir: Path,
    space: SpaceKey,
    partition_digests: Sequence[str],
    specification: IndexSpecification | None,
    *,
    covers_sequence: int | None = None,
    samples: Sequence[str] = (),
    seed: int = 0,
    centroids: CentroidSearch | None = None,
) -> PreparedSnapshot:
    """All steps to a snapshot but publishing it: :func:`fold` and :func:`index_base`, in this process.

    ``specification`` None: no index; searches scan. ``samples``: what the partitions of a compressed space
    kept, see :mod:`bedplate_store.compression`. ``centroids``: see :mod:`bedplate_store.base_indexes`. Slow,
    holds no transaction, changes nothing that readers see; running it twice is harmless.

    Raises:
        NotFound, Conflict, StorageFull: see :func:`fold`.
    """
    base = fold(database, objects, cache_dir, space, partition_digests, covers_sequence=covers_sequence)
    index = None
    if specification is not None:
        index = index_base(objects, cache_dir, base, specification, seed=seed, centroids=centroids)
    compression = measure(objects, cache_dir, base.segment, samples, base.metric)
    return PreparedSnapshot.of(base, index, specification, compression)


def publish(
    session: WriteSession,
    prepared: PreparedSnapshot,
    *,
    objects: ObjectStore,
    job: str | None,
    now: datetime,
) -> Snapshot:
    """Let readers see ``prepared``. The same job publishing the same digest again gets the same snapshot.

    Raises:
        NotFound: no such space.
        SnapshotMoved: another snapshot was published since; prepare again.
        Conflict: its objects were collected since; prepare again.
    """
    hold_collection(session)
    space = space_row(session, prepared.space, lock=True)
    again = None if job is None else _published_by(session, space.id, job, prepared.digest)
    if again is not None:
        return _document(prepared.space, again)
    if space.snapshot != prepared.expected_snapshot:
        raise SnapshotMoved(
            f"{prepared.space} is at snapshot {space.snapshot}, this one was prepared to follow "
            f"{prepared.expected_snapshot}: prepare it again.",
            expected_snapshot=prepared.expected_snapshot,
            snapshot=space.snapshot,
        )
    _check_whole(objects, prepared)
    row = _insert(session, space, prepared, job, now)
    return _document(prepared.space, row)


def list_snapshots(session: ReadSession, foundation: str, version: int, space: str) -> list[Snapshot]:
    """All snapshots ever published, newest first (NotFound)."""
    key = SpaceKey(foundation, version, space)
    row = space_row(session, key)
    query = select(SnapshotRow).where(SnapshotRow.space_id == row.id).order_by(SnapshotRow.number.desc())
    return [_document(key, each) for each in session.scalars(query)]


def current_sequence(session: ReadSession, foundation: str, version: int, space: str) -> int:
    """The sequence of the last acknowledged write, 0 before the first (NotFound)."""
    return space_row(session, SpaceKey(foundation, version, space)).sequence


def specification_of(
    session: ReadSession, foundation: str, version: int, space: str
) -> IndexSpecification | None:
    """What the present snapshot's index was asked to be; the defaults before the first (NotFound)."""
    current = _current(session, space_row(session, SpaceKey(foundation, version, space)))
    if current is None:
        return IndexSpecification()
    return None if current.specification is None else IndexSpecification.model_validate(current.specification)


def _rows_after(session: ReadSession, space_id: int, sequence: int) -> int:
    query = select(func.coalesce(func.sum(WriteRow.rows), 0))
    rows = session.scalar(query.where(WriteRow.space_id == space_id, WriteRow.sequence > sequence))
    return int(rows or 0)


def _current(session: ReadSession, space: SpaceRow) -> SnapshotRow | None:
    return None if space.snapshot is None else session.get(SnapshotRow, (space.id, space.snapshot))


def _published_by(session: ReadSession, space_id: int, job: str, digest: str) -> SnapshotRow | None:
    return session.scalar(
        select(SnapshotRow).where(
            SnapshotRow.space_id == space_id, SnapshotRow.job == job, SnapshotRow.digest == digest
        )
    )


def _check_whole(objects: ObjectStore, prepared: PreparedSnapshot) -> None:
    index = prepared.index
    files = [] if index is None else index.files
    if not segment_is_whole(objects, prepared.segment) or any(
        objects.size(index_key(digest)) != size for digest, size in files
    ):
        raise Conflict(f"objects of the snapshot prepared for {prepared.space} are gone: prepare it again.")


def _insert(
    session: WriteSession, space: SpaceRow, prepared: PreparedSnapshot, job: str | None, now: datetime
) -> SnapshotRow:
    previous = _current(session, space)
    if previous is not None:
        previous.superseded_at = now
    index = prepared.index
    row = SnapshotRow(
        space_id=space.id,
        number=(space.snapshot or 0) + 1,
        digest=prepared.digest,
        segments=[prepared.segment.to_json()],
        index=None if index is None else index.to_json(),
        rows=prepared.segment.rows,
        bytes=prepared.segment.bytes + (0 if index is None else index.bytes),
        specification=None if prepared.specification is None else prepared.specification.model_dump(),
        compression=_compression(previous, prepared),
        covers_sequence=prepared.covers_sequence,
        covers_rows=space.written_rows - _rows_after(session, space.id, prepared.covers_sequence),
        job=job,
        published_at=now,
        superseded_at=None,
        collected_at=None,
    )
    session.add(row)
    space.snapshot = row.number
    space.updated_at = now
    session.flush()
    return row


def _compression(previous: SnapshotRow | None, prepared: PreparedSnapshot) -> dict[str, Any] | None:
    """Compaction embeds nothing: what was measured last still tells of nearly all rows."""
    if prepared.compression is not None:
        return prepared.compression.model_dump()
    return None if previous is None else previous.compression


def _document(key: SpaceKey, row: SnapshotRow) -> Snapshot:
    index = None if row.index is None else IndexDocument.from_json(row.index)
    return Snapshot(
        reference=str(key),
        snapshot=row.number,
        digest=row.digest,
        rows=row.rows,
        bytes=row.bytes,
        index_kind="none" if index is None else index.kind,
        index_parameters={} if index is None else index.parameters,
        recall_at_10=None if index is None else index.recall_at_10,
        recall_at_100=None if index is None else index.recall_at_100,
        compression=None if row.compression is None else Compression.model_validate(row.compression),
        shards=1 if index is None else max(1, len(index.shards)),
        job=row.job,
        published_at=row.published_at,
    )
