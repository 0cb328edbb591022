"""The readers a process serves from: one for each space, replaced when the database shows something newer.

A reader is an immutable view. A request takes one reader and asks it everything, so it never mixes snapshots.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Self, cast

from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError

from bedplate.errors import BedplateError, InternalError, NotFound, SpaceNotReady
from bedplate.wire.registry import Dtype, KeyType, Metric
from bedplate_store.database import Database
from bedplate_store.indexes import IndexDocument, VectorIndex, index_key, open_index
from bedplate_store.mapping import local_file, prune_cache
from bedplate_store.objects import ObjectStore
from bedplate_store.overlay import Overlay
from bedplate_store.segments import Segment, open_segment
from bedplate_store.space_reader import K_MAX, LookupResult, SearchResult, SpaceReader
from bedplate_store.spaces import SpaceKey, space_row
from bedplate_store.tables.spaces import SnapshotRow, SpaceRow, WriteRow

__all__ = ["K_MAX", "LookupResult", "SearchResult", "SpaceReader", "SpaceReaders"]

logger = logging.getLogger(__name__)

_LOAD_ATTEMPTS = 3
_PRUNE_SECONDS = 600.0
_CACHED_UNUSED = timedelta(hours=1)


@dataclass
class _Entry:
    """The newest reader of a space; ``lock`` lets one thread at a time make a newer one."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    reader: SpaceReader | None = None
    checked_at: float = 0.0


@dataclass(frozen=True, slots=True)
class _State:
    """What the database says a reader should see."""

    row: SpaceRow
    snapshot: SnapshotRow | None
    writes: list[str]


class SpaceReaders:
    """Readers by space; may be used by several threads at once.

    A reader is at most ``refresh_seconds`` behind the database, plus the time a newer snapshot takes to open.
    Between :meth:`start` and :meth:`close` a thread of its own looks for newer ones, and :meth:`get` costs
    a dictionary access; otherwise :meth:`get` looks itself. A database that cannot be reached leaves the
    readers as they are: what they serve is old, consistent, and named by its snapshot and sequence.
    """

    def __init__(
        self,
        database: Database,
        objects: ObjectStore,
        cache_dir: Path,
        refresh_seconds: float = 0.5,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._database = database
        self._objects = objects
        self._cache_dir = cache_dir
        self._refresh_seconds = refresh_seconds
        self._clock = clock
        self._entries: dict[SpaceKey, _Entry] = {}
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None

    def get(self, foundation: str, version: int, space: str) -> SpaceReader:
        """The newest reader of a space.

        Raises:
            NotFound: no such space.
            SpaceNotReady: it has neither a snapshot nor a write.
        """
        key = SpaceKey(foundation, version, space)
        entry = self._entries.get(key)
        if entry is not None and entry.reader is not None:
            # The thread refreshes in time; if it hangs or died, we do it here, a little later.
            patience = 3 if self._thread is not None and self._thread.is_alive() else 1
            if self._clock() - entry.checked_at < patience * self._refresh_seconds:
                return entry.reader
        return self._refresh(key, force=False)

    def refresh_now(self, foundation: str, version: int, space: str) -> SpaceReader:
        """A reader that sees everything acknowledged before this call; raises as :meth:`get`."""
        return self._refresh(SpaceKey(foundation, version, space), force=True)

    def prune_cache(self, before: datetime) -> int:
        """Remove what was last opened before ``before`` and no reader here uses; returns how many files went.

        The thread does it by itself: write segments and superseded snapshots go after an hour. Without the
        thread, somebody must call it now and then.
        """
        used: set[str] = set()
        for entry in list(self._entries.values()):
            if entry.reader is not None:
                used |= entry.reader.digests
        return prune_cache(self._cache_dir, used, before)

    def start(self) -> None:
        """Refresh in a thread of its own from now on."""
        if self._thread is None:
            self._stopped.clear()
            self._thread = threading.Thread(target=self._run, name="space-readers", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """Stop the thread; readers already handed out stay usable."""
        self._stopped.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _run(self) -> None:
        pruned_at = self._clock()
        while not self._stopped.wait(self._refresh_seconds / 2):
            if self._clock() - pruned_at > _PRUNE_SECONDS:
                pruned_at = self._clock()
                self.prune_cache(datetime.now(UTC) - _CACHED_UNUSED)
            for key in list(self._entries):
                try:
                    self._refresh(key, force=True)
                except (BedplateError, OSError, SQLAlchemyError):
                    logger.exception("space %s could not be refreshed", key)

    def _refresh(self, key: SpaceKey, *, force: bool) -> SpaceReader:
        entry = self._entries.setdefault(key, _Entry())
        # While one thread opens a newer snapshot, the others go on with the one they have.
        if not entry.lock.acquire(blocking=force or entry.reader is None):
            return cast(SpaceReader, entry.reader)
        try:
            checked_at = self._clock()
            fresh = entry.reader is not None and checked_at - entry.checked_at < self._refresh_seconds
            if fresh and not force:
                return cast(SpaceReader, entry.reader)
            entry.reader = self._newest(key, entry.reader)
            entry.checked_at = checked_at
            return entry.reader
        except (NotFound, SpaceNotReady):
            # Not remembered: names that do not exist must not pile up.
            self._entries.pop(key, None)
            raise
        finally:
            entry.lock.release()

    def _newest(self, key: SpaceKey, reader: SpaceReader | None) -> SpaceReader:
        try:
            return self._load(key, reader)
        except SQLAlchemyError:
            if reader is None:
                raise
            logger.exception("the database cannot be read; space %s stays at %s", key, reader.sequence)
            return reader

    def _load(self, key: SpaceKey, reader: SpaceReader | None) -> SpaceReader:
        for attempt in range(_LOAD_ATTEMPTS):
            state = self._state(key, reader)
            number = 0 if state.snapshot is None else state.snapshot.number
            if reader is not None and (reader.snapshot, reader.sequence) == (number, state.row.sequence):
                return reader
            try:
                return self._open(key, state, reader)
            except NotFound as error:
                # A collector with no grace took what a newer snapshot replaced while we opened it.
                if attempt == _LOAD_ATTEMPTS - 1:
                    raise InternalError(
                        f"snapshot {number} of {key} refers to an object that is gone: restore it, "
                        "or embed the space again."
                    ) from error
        raise AssertionError("unreachable: the last attempt returns or raises")

    def _state(self, key: SpaceKey, reader: SpaceReader | None) -> _State:
        with self._database.read() as session:
            row = space_row(session, key)
            if row.snapshot is None and row.sequence == 0:
                raise SpaceNotReady(
                    f"{key} holds nothing yet: embed it (POST .../embed) or upsert vectors, then ask again.",
                    reference=str(key),
                )
            snapshot = None if row.snapshot is None else session.get(SnapshotRow, (row.id, row.snapshot))
            since = 0 if snapshot is None else snapshot.covers_sequence
            if reader is not None and reader.snapshot == (row.snapshot or 0):
                since = reader.sequence
            writes = session.scalars(
                select(WriteRow.digest)
                .where(
                    WriteRow.space_id == row.id,
                    WriteRow.sequence > since,
                    WriteRow.sequence <= row.sequence,
                )
                .order_by(WriteRow.sequence)
            )
            return _State(row, snapshot, list(writes))

    def _open(self, key: SpaceKey, state: _State, reader: SpaceReader | None) -> SpaceReader:
        row, snapshot = state.row, state.snapshot
        dtype, key_type = cast(Dtype, row.dtype), cast(KeyType, row.key_type)
        metric = cast(Metric, row.metric)
        number = 0 if snapshot is None else snapshot.number
        base: Segment | None = None
        index: VectorIndex | None = None
        overlay = Overlay.empty(key_type, row.dim, dtype)
        digests = frozenset[str]()
        if reader is not None and reader.snapshot == number:
            base, index, overlay, digests = reader.base, reader.index, reader.overlay, reader.digests
        elif snapshot is not None:
            base = open_segment(self._objects, snapshot.segments[0]["digest"], self._cache_dir)
            index = self._open_index(snapshot, metric)
            digests = frozenset(each["digest"] for each in (snapshot.segments[0], snapshot.index) if each)
        writes = [open_segment(self._objects, digest, self._cache_dir) for digest in state.writes]
        return SpaceReader(
            space=key,
            dim=row.dim,
            dtype=dtype,
            metric=metric,
            key_type=key_type,
            snapshot=number,
            sequence=row.sequence,
            base=base,
            index=index,
            overlay=overlay.extended(writes),
            digests=digests,
        )

    def _open_index(self, snapshot: SnapshotRow, metric: Metric) -> VectorIndex | None:
        if snapshot.index is None:
            return None
        document = IndexDocument.from_json(snapshot.index)
        path = local_file(
            self._objects,
            index_key(document.digest),
            self._cache_dir,
            bytes_=document.bytes,
            sha256=document.digest,
        )
        return open_index(path, document, metric)
