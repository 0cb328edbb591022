"""The readers a process serves from: one for each space, replaced when the database shows something newer.

A reader is an immutable view. A request takes one reader and asks it everything, so it never mixes snapshots.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self, cast

from sqlalchemy.exc import SQLAlchemyError

from bedplate.errors import (
    BedplateError,
    InternalError,
    NotFound,
    SpaceNotReady,
    StorageFull,
    Unavailable,
)
from bedplate.wire.registry import Metric
from bedplate_store import prefetching, reader_processes
from bedplate_store.database import Database
from bedplate_store.filters import FilterCache
from bedplate_store.mapping import prune_cache
from bedplate_store.objects import ObjectStore
from bedplate_store.opening import extended, open_snapshot, reader_of, warm
from bedplate_store.reader_processes import OpenSpace
from bedplate_store.space_reader import K_MAX, LookupResult, SearchResult, SpaceReader
from bedplate_store.space_states import Committed, committed, read_state
from bedplate_store.spaces import SpaceKey

__all__ = ["K_MAX", "LookupResult", "SearchResult", "SpaceReader", "SpaceReaders"]

logger = logging.getLogger(__name__)

_LOAD_ATTEMPTS = 3
_FAULTS = (SQLAlchemyError, OSError, Unavailable, StorageFull, InternalError)
_RETRY_SECONDS = 30.0
_CLOSE_SECONDS = 5.0
_WRITES_UNDER_LOCK = 8
_HELD_REFRESHES = 3
"""So long a superseded reader is kept: then the requests that met it have ended."""
_FAILURES = (BedplateError, OSError, SQLAlchemyError)


@dataclass
class _Entry:
    """The newest reader of a space; ``lock`` lets one thread at a time make a newer one.

    ``asked_at`` is None for what was opened ahead and nobody has asked for; ``whole_at`` is when the reader
    last had all that was committed.
    """

    lock: threading.Lock = field(default_factory=threading.Lock)
    reader: SpaceReader | None = None
    checked_at: float = 0.0
    whole_at: float = 0.0
    asked_at: float | None = None

    def show(self, reader: SpaceReader, checked_at: float, *, whole: bool) -> None:
        """Have requests answered by ``reader`` from now on."""
        self.reader, self.checked_at = reader, checked_at
        if whole:
            self.whole_at = checked_at


class _Step(NamedTuple):
    """A space's reader after a refresh, and whether it is still behind what was committed when we looked."""

    reader: SpaceReader
    behind: bool


class SpaceReaders:
    """Readers by space; may be used by several threads at once.

    A reader is at most ``refresh_seconds`` behind the database. Between :meth:`start` and :meth:`close` two
    threads keep it so, and :meth:`get` costs a dictionary access. One brings new writes, many of them in
    steps, each shown at once. The other opens
    newer snapshots aside, as long as that takes, while the old one serves on with all writes; it also opens
    what is about to be asked for, and lets go what nobody has asked for in ``keep_seconds``. Without the
    threads :meth:`get` looks itself. A database or object store that cannot be read, a damaged object and a
    full disk leave the readers as they are: what they serve is old, consistent, and named by its snapshot
    and sequence.

    Args:
        follows: open newer versions of the spaces served, because requests follow an alias.

    Attributes:
        looked: set when what the other processes serve, as the thread found it when it began, is open here.
    """

    def __init__(
        self,
        database: Database,
        objects: ObjectStore,
        cache_dir: Path,
        refresh_seconds: float = 0.5,
        clock: Callable[[], float] = time.monotonic,
        *,
        keep_seconds: float = 600.0,
        follows: bool = False,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.follows = follows
        self._database = database
        self._objects = objects
        self._cache_dir = cache_dir
        self._refresh_seconds = refresh_seconds
        self._keep_seconds = keep_seconds
        self._clock = clock
        self._now = now
        self._entries: dict[SpaceKey, _Entry] = {}
        self._filters = FilterCache()
        self._failed: dict[SpaceKey, tuple[int, float]] = {}
        self._superseded: list[tuple[SpaceReader, float]] = []
        self.looked = threading.Event()
        self._stopped = threading.Event()
        self._refreshing: threading.Thread | None = None
        self._opening: threading.Thread | None = None

    def get(self, foundation: str, version: int, space: str) -> SpaceReader:
        """The newest reader of a space.

        Raises:
            NotFound: no such space.
            SpaceNotReady: it has neither a snapshot nor a write.
        """
        key = SpaceKey(foundation, version, space)
        entry = self._entries.get(key)
        if entry is not None and entry.reader is not None:
            entry.asked_at = self._clock()
            # The thread refreshes in time; if it hangs or died, we do it here, a little later.
            patience = 3 if _alive(self._refreshing) else 1
            if entry.asked_at - entry.checked_at < patience * self._refresh_seconds:
                return entry.reader
        return self._refresh(key)

    def refresh_now(self, foundation: str, version: int, space: str) -> SpaceReader:
        """A reader that sees every write acknowledged before this call, or an error: never an older one."""
        return self._refresh(SpaceKey(foundation, version, space), whole=True)

    def current(self, reader: SpaceReader) -> SpaceReader:
        """The newest reader of the same space that is open here, without looking for a newer one; ``reader``
        itself where the space was let go.
        """
        entry = self._entries.get(reader.space)
        return reader if entry is None or entry.reader is None else entry.reader

    def keep_up(self, space: SpaceKey) -> None:
        """Refresh the space's reader here, if there is one that has not been up to date since the last
        refresh was due.

        For who has written: while reading falls behind writing, writers wait here instead of widening the
        gap, and the processor is the reader's.
        """
        entry = self._entries.get(space)
        if entry is None or entry.reader is None or not _alive(self._refreshing):
            return
        if self._clock() - entry.whole_at <= self._refresh_seconds:
            return
        try:
            self._renew(space, entry, ask=True, whole=True)
        except _FAILURES:
            logger.exception("space %s could not be refreshed after a write", space)

    def opened(self) -> dict[SpaceKey, OpenSpace]:
        """What this process has open."""
        found = {}
        for key, entry in list(self._entries.items()):
            reader = entry.reader
            if reader is not None:
                found[key] = OpenSpace(reader.snapshot, reader.sequence, self._in_use(entry))
        return found

    def open_ahead(self) -> None:
        """Open what was published since and what is about to be asked for; let go what nobody asks for.

        Where requests follow an alias, what another process is asked for counts as asked for here: the next
        request may come here. The thread does it by itself, warms what it opens, and takes its time. It is
        also the last to hold a superseded reader, so that no request waits while large files are unmapped.
        """
        held_since = self._clock() - _HELD_REFRESHES * self._refresh_seconds
        self._superseded = [(reader, at) for reader, at in self._superseded if at > held_since]
        entries = list(self._entries.items())
        served = {key for key, entry in entries if self._in_use(entry)}
        open_here = {key for key, _ in entries}
        ahead: set[SpaceKey] = set()
        with self._database.read() as session:
            if self.follows:
                served |= reader_processes.served(session, self._now())
            known = prefetching.openable(session, open_here | served, self._now())
        if self.follows:
            ahead = prefetching.ahead(served, known)
        for key in open_here - served - ahead:
            self._let_go(key)
        for one in known:
            if one.key in ahead or one.key in served or one.key in self._entries:
                self._open_aside(one.key, one.snapshot)

    def prune_cache(self, before: datetime) -> int:
        """Remove what was last opened before ``before`` and no reader here uses; returns how many files went.

        :class:`~bedplate_store.local_caches.LocalCaches` says when; the threads here never do it.
        """
        used: set[str] = set()
        for entry in list(self._entries.values()):
            if entry.reader is not None:
                used |= entry.reader.digests
        return prune_cache(self._cache_dir, used, before)

    def start(self) -> None:
        """Refresh and open ahead in threads of their own from now on."""
        if self._refreshing is None:
            self._stopped.clear()
            self._refreshing = threading.Thread(target=self._run, name="space-readers", daemon=True)
            self._opening = threading.Thread(target=self._run_ahead, name="snapshots", daemon=True)
            self._refreshing.start()
            self._opening.start()

    def close(self) -> None:
        """Stop the threads; readers already handed out stay usable. A fetch under way is not waited for."""
        self._stopped.set()
        for thread in (self._refreshing, self._opening):
            if thread is not None:
                thread.join(_CLOSE_SECONDS)
        self._refreshing = self._opening = None
        self._superseded = []

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _run(self) -> None:
        pause = self._refresh_seconds / 2
        while not self._stopped.wait(pause):
            behind = self._refresh_round()
            pause = 0.0 if behind else self._refresh_seconds / 2

    def _refresh_round(self) -> bool:
        """Bring each space one step closer to the database; whether one of them needs another step.

        One query tells which spaces have something new, and only these are read. One space's many writes
        do not hold up another's few.
        """
        behind = False
        looked_at = self._clock()
        entries = [(key, entry) for key, entry in list(self._entries.items()) if entry.reader is not None]
        # Whoever opens a space may take long, and the others' writes do not wait for that: not in the list.
        try:
            known = committed(self._database, [key for key, _ in entries]) if entries else {}
        except _FAILURES:
            known = {}  # each space is asked for by itself, and says what is wrong
        for key, entry in entries:
            if self._is_whole(entry, known.get(key), looked_at):
                continue
            try:
                behind |= self._renew(key, entry, ask=True).behind
            except _FAILURES:
                logger.exception("space %s could not be refreshed", key)
        return behind

    def _is_whole(self, entry: _Entry, known: Committed | None, looked_at: float) -> bool:
        """Whether the reader has all that was committed when we looked; then it counts as looked at."""
        reader = entry.reader
        if reader is None or known != (reader.snapshot, reader.sequence):
            return False
        if not entry.lock.acquire(blocking=False):
            return False
        try:
            if entry.reader is reader and entry.checked_at <= looked_at:
                entry.show(reader, looked_at, whole=True)
            return True
        finally:
            entry.lock.release()

    def _run_ahead(self) -> None:
        pause = 0.0
        while not self._stopped.wait(pause):
            pause = self._refresh_seconds
            try:
                if self.looked.is_set():
                    self.open_ahead()
                else:
                    self._open_what_others_serve()
            except _FAILURES:
                logger.exception("snapshots could not be opened ahead")

    def _in_use(self, entry: _Entry) -> bool:
        """Whether somebody asked for it lately, or does so for the first time just now."""
        if entry.asked_at is None:
            return entry.reader is None
        return entry.asked_at >= self._clock() - self._keep_seconds

    def _open_what_others_serve(self) -> None:
        """A process that starts will be asked for what the others, or its own predecessor, are asked for."""
        with self._database.read() as session:
            served = reader_processes.served(session, self._now(), follows=self.follows)
        for key in served:
            if self._stopped.is_set():
                return
            try:
                self._refresh(key)
            except _FAILURES:  # one that is damaged must not keep the others from being served
                logger.exception("space %s could not be opened", key)
        self.looked.set()

    def _refresh(self, key: SpaceKey, *, whole: bool = False) -> SpaceReader:
        entry = self._entries.setdefault(key, _Entry())
        entry.asked_at = self._clock()
        return self._renew(key, entry, ask=whole, whole=whole).reader

    def _renew(self, key: SpaceKey, entry: _Entry, *, ask: bool, whole: bool = False) -> _Step:
        """Take a step, or with ``whole`` all that it takes to see what is committed now; each is shown at
        once. ``ask`` the database even if the reader is fresh.
        """
        # While one thread refreshes a space, the others go on with the reader they have.
        if not entry.lock.acquire(blocking=whole or entry.reader is None):
            return _Step(cast(SpaceReader, entry.reader), behind=False)
        try:
            wanted = None
            while True:
                checked_at = self._clock()
                fresh = entry.reader is not None and checked_at - entry.checked_at < self._refresh_seconds
                if fresh and not ask:
                    return _Step(cast(SpaceReader, entry.reader), behind=False)
                reader, committed = self._load(key, entry.reader)
                entry.show(reader, checked_at, whole=reader.sequence >= committed)
                wanted = committed if wanted is None else wanted
                if not whole or reader.sequence >= wanted:
                    return _Step(reader, behind=reader.sequence < committed)
        except (NotFound, SpaceNotReady):
            # Not remembered: names that do not exist must not pile up.
            self._entries.pop(key, None)
            raise
        except _FAULTS:
            # Not asked again at once: trying may take as long as the object store's retries.
            entry.checked_at = entry.whole_at = self._clock()
            if entry.reader is None or whole:
                raise
            logger.exception("space %s cannot be refreshed; it stays at %s", key, entry.reader.sequence)
            return _Step(entry.reader, behind=False)
        finally:
            entry.lock.release()

    def _load(self, key: SpaceKey, reader: SpaceReader | None) -> tuple[SpaceReader, int]:
        """A newer reader, and the last sequence that was committed when we looked."""
        for attempt in range(_LOAD_ATTEMPTS):
            state = read_state(self._database, key, reader)
            committed = state.row.sequence
            try:
                if reader is not None and reader.snapshot == state.number:
                    return extended(reader, state, self._objects, self._cache_dir), committed
                if reader is not None and state.behind is not None and _alive(self._opening):
                    # The other thread opens the newer snapshot; meanwhile this one shows all writes.
                    return extended(reader, state, self._objects, self._cache_dir), committed
                metric = cast(Metric, state.row.metric)
                opened = open_snapshot(self._objects, self._cache_dir, state.snapshot, metric)
                return reader_of(key, state, opened, self._objects, self._cache_dir, self._filters), committed
            except NotFound as error:
                # A collector with no grace took what a newer snapshot replaced while we opened it.
                if attempt == _LOAD_ATTEMPTS - 1:
                    raise InternalError(
                        f"snapshot {state.number} of {key} refers to an object that is gone: restore it, "
                        "or embed the space again."
                    ) from error
        raise AssertionError("unreachable: the last attempt returns or raises")

    def _open_aside(self, key: SpaceKey, number: int) -> None:
        """Open and warm a snapshot, then let the space's next requests have it. A failure is tried again."""
        entry = self._entries.get(key)
        if entry is not None and entry.reader is not None and entry.reader.snapshot == number:
            return
        failed, retry_at = self._failed.get(key, (0, 0.0))
        if failed == number and self._clock() < retry_at:
            return
        try:
            self._swap(key)
            self._failed.pop(key, None)
        except _FAILURES:
            self._failed[key] = (number, self._clock() + _RETRY_SECONDS)
            logger.exception("snapshot %s of %s could not be opened; what is open serves on", number, key)

    def _swap(self, key: SpaceKey) -> None:
        state = read_state(self._database, key, None)
        metric = cast(Metric, state.row.metric)
        opened = open_snapshot(self._objects, self._cache_dir, state.snapshot, metric)
        warm(opened, self._stopped)
        # The writes above it as well: opening and copying them under the lock would keep new ones from being
        # shown on the old snapshot, for seconds where many came while it was built.
        ready = reader_of(key, state, opened, self._objects, self._cache_dir, self._filters)
        aside = self._caught_up(key, ready, _WRITES_UNDER_LOCK)
        entry = self._entries.setdefault(key, _Entry())
        with entry.lock:
            if aside is None or (entry.reader is not None and entry.reader.snapshot == opened.number):
                return
            checked_at = self._clock()
            newest = self._caught_up(key, aside, 0)
            if newest is not None:
                if entry.reader is not None:
                    self._superseded.append((entry.reader, checked_at))
                entry.show(newest, checked_at, whole=True)
                logger.info("snapshot %s of %s is open", opened.number, key)

    def _caught_up(self, key: SpaceKey, reader: SpaceReader, writes_left: int) -> SpaceReader | None:
        """``reader`` with all but the last ``writes_left`` writes; None where it need not be caught up any
        more: a newer snapshot was published, which the next pass opens, or we are closing.
        """
        while not self._stopped.is_set():
            state = read_state(self._database, key, reader)
            if state.number != reader.snapshot:
                return None
            if state.row.sequence - reader.sequence <= writes_left:
                return reader
            reader = extended(reader, state, self._objects, self._cache_dir)
        return None

    def _let_go(self, key: SpaceKey) -> None:
        """Forget a space's reader; its files are unmapped when the last request that uses it has ended."""
        self._entries.pop(key, None)
        self._failed.pop(key, None)
        logger.info("space %s is let go", key)


def _alive(thread: threading.Thread | None) -> bool:
    return thread is not None and thread.is_alive()
