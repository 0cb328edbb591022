"""A store node: a process that has open the shards assigned to it, and nothing else.

It looks at the assignments several times a second. What is new it opens, and says so; what is no longer its
own it keeps until whoever has it now says that it is open there. So a shard moves without a request that
finds it nowhere. Decisions are pure functions.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import cast

from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError

from bedplate.errors import BedplateError, NotFound
from bedplate.wire.registry import Dtype, KeyType, Metric
from bedplate_store import reader_processes
from bedplate_store.database import Database, ReadSession
from bedplate_store.indexes import IndexDocument
from bedplate_store.local_caches import SEGMENTS_UNUSED, LocalCache, LocalCaches
from bedplate_store.mapping import prune_cache
from bedplate_store.objects import ObjectStore
from bedplate_store.opening import warm
from bedplate_store.reader_processes import OpenSpace, ReaderProcess, Unready
from bedplate_store.shard_assignments import owners, read_assignments
from bedplate_store.shard_views import HeldSnapshot, ShardedSnapshot, ShardGroup, ShardMissing
from bedplate_store.spaces import SpaceKey
from bedplate_store.tables.spaces import SnapshotRow, SpaceRow

logger = logging.getLogger(__name__)

POLL_SECONDS = 0.25
LINGER_SECONDS = 3.0
"""How long what is not needed here stays open: somebody may have decided to ask here a moment ago."""
_IDLE_SECONDS = 1.0
_RETRY_SECONDS = 5.0
_CLOSE_SECONDS = 5.0
_FAILURES = (BedplateError, OSError, SQLAlchemyError)

Shard = tuple[SpaceKey, int, int]
"""(space, snapshot, number)."""


@dataclass(frozen=True, slots=True)
class PublishedShards:
    """The published snapshot of a space, cut into shards, and the node that each is assigned to."""

    snapshot: ShardedSnapshot
    sequence: int
    owners: Sequence[str | None]

    @property
    def key(self) -> SpaceKey:
        return self.snapshot.key

    def all(self) -> set[Shard]:
        return {(self.key, self.snapshot.number, number) for number in range(len(self.owners))}

    def of(self, node: str | None) -> set[Shard]:
        """What is assigned to a node."""
        return {shard for shard in self.all() if self.owners[shard[2]] == node}


def to_open(node: str, published: Iterable[PublishedShards]) -> set[Shard]:
    """What a node should have open."""
    return {shard for space in published for shard in space.of(node)}


def needed(
    held: Collection[Shard],
    node: str,
    published: Mapping[SpaceKey, PublishedShards],
    living: Sequence[ReaderProcess],
) -> set[Shard]:
    """What of ``held`` somebody may still have to ask this node for.

    What is assigned to it; what is assigned to another node that does not say yet that it is open there; and
    an older snapshot, until every living owner has its shards of the published one.
    """
    elsewhere = {
        (key, snapshot, number)
        for process in living
        if process.node != node
        for key, space in process.spaces.items()
        for snapshot, numbers in space.shards
        for number in numbers
    }
    alive = {process.node for process in living} | {node}
    kept = set()
    for shard in held:
        space = published.get(shard[0])
        if space is None:
            continue
        if shard[1] == space.snapshot.number:
            if shard in space.of(node) or (shard not in space.of(None) and shard not in elsewhere):
                kept.add(shard)
            continue
        there = elsewhere | set(held)
        if any(one not in there for owner in alive for one in space.of(owner)):
            kept.add(shard)
    return kept


def unready_for(
    session: ReadSession, foundation: str, current: int, target: int, now: datetime
) -> list[Unready]:
    """Which store nodes would have to open something when an alias moves from one version to another."""
    published = {space.key: space for space in published_shards(session)}
    living, _ = reader_processes.nodes(session, now)
    return unready(published, living, foundation, current, target)


def unready(
    published: Mapping[SpaceKey, PublishedShards],
    living: Sequence[ReaderProcess],
    foundation: str,
    current: int,
    target: int,
) -> list[Unready]:
    """The same, decided on what is known; only spaces that nodes serve in the current version count."""
    here = {
        (process.node, (key, snapshot, number))
        for process in living
        for key, space in process.spaces.items()
        for snapshot, numbers in space.shards
        for number in numbers
    }
    found = []
    for key in published:
        space = published.get(SpaceKey(foundation, target, key.space))
        if (key.foundation, key.version) != (foundation, current) or space is None:
            continue
        for shard in sorted(space.all()):
            owner = space.owners[shard[2]]
            if (owner, shard) not in here:
                reason = f"shard {shard[2]} of snapshot {shard[1]} is not open yet"
                found.append(Unready(f"store node {owner}", str(space.key), reason))
    return found


def published_shards(session: ReadSession) -> list[PublishedShards]:
    """Of every space whose published snapshot is cut into shards, if anybody is to serve one of them."""
    assignments = read_assignments(session)
    if not assignments:
        return []
    query = select(SpaceRow, SnapshotRow).join(
        SnapshotRow, (SnapshotRow.space_id == SpaceRow.id) & (SnapshotRow.number == SpaceRow.snapshot)
    )
    found = []
    for row, snapshot in session.execute(query):
        sharded = sharded_snapshot(row, snapshot)
        if sharded is not None:
            shared = owners(assignments, sharded.key, len(sharded))
            if any(shared):
                found.append(PublishedShards(sharded, row.sequence, shared))
    return found


def sharded_snapshot(row: SpaceRow, snapshot: SnapshotRow | None) -> ShardedSnapshot | None:
    """A snapshot of the space, if it is cut into shards."""
    if snapshot is None or snapshot.index is None or not snapshot.index["shards"]:
        return None
    return ShardedSnapshot(
        key=SpaceKey(row.foundation, row.version, row.space),
        number=snapshot.number,
        dim=row.dim,
        dtype=cast(Dtype, row.dtype),
        metric=cast(Metric, row.metric),
        key_type=cast(KeyType, row.key_type),
        base=snapshot.segments[0]["digest"],
        document=IndexDocument.from_json(snapshot.index),
    )


class ShardNode:
    """What this process has open; ``at`` may be called from any thread, ``step`` from one.

    Args:
        node: its name, which the assignments use. A process that is to replace another one has the same.
        leaving: whether the process was told to stop; it answers on, but says to have nothing, so that
            whoever finds another one that has it asks there.
    """

    follows = False

    def __init__(
        self,
        database: Database,
        objects: ObjectStore,
        cache_dir: Path,
        node: str,
        *,
        leaving: Callable[[], bool] = lambda: False,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.node = node
        self._leaving = leaving
        self._database = database
        self._objects = objects
        self._cache_dir = cache_dir
        self._clock = clock
        self._now = now
        self._held: dict[tuple[SpaceKey, int], HeldSnapshot] = {}
        self._unneeded_since: dict[Shard, float] = {}
        self._retry_at: dict[Shard, float] = {}
        self._caches = LocalCaches([LocalCache("segments and indexes", SEGMENTS_UNUSED, self._prune)], now)
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None
        self.looked = threading.Event()
        """Set once what was assigned when the process started is open, or could not be opened."""

    def at(self, key: SpaceKey, snapshot: int, sequence: int, shards: tuple[int, ...]) -> ShardGroup:
        """Some shards of a snapshot with exactly the writes up to ``sequence``.

        Raises:
            ShardMissing: not here. SequencePassed: that is in the past.
        """
        held = self._held.get((key, snapshot))
        if held is None:
            raise ShardMissing(f"snapshot {snapshot} of {key} is not open here")
        return held.at(sequence, shards)

    def opened(self) -> dict[SpaceKey, OpenSpace]:
        """What is open, for the others to see."""
        if self._leaving():
            return {}
        by_space: dict[SpaceKey, list[HeldSnapshot]] = {}
        for held in list(self._held.values()):
            if held.shards:
                by_space.setdefault(held.snapshot.key, []).append(held)
        found = {}
        for key, several in by_space.items():
            newest = max(several, key=lambda held: held.snapshot.number)
            shards = tuple((held.snapshot.number, held.shards) for held in several)
            found[key] = OpenSpace(newest.snapshot.number, newest.sequence, True, shards)
        return found

    def step(self) -> None:
        """Open what is assigned here, let go what nobody needs here."""
        with self._database.read() as session:
            published = {space.key: space for space in published_shards(session)}
            living, _ = reader_processes.nodes(session, self._now())
        wanted = to_open(self.node, published.values())
        for shard in sorted(wanted - self._all_held()):
            if self._stopped.is_set():
                return
            self._open(shard, published[shard[0]].snapshot)
        self._let_go(needed(self._all_held(), self.node, published, living) | wanted)
        self._keep_up(published)
        self._caches.prune_if_due()

    def start(self) -> None:
        """Step in a thread of its own from now on."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="shards", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """Stop the thread; an opening under way is not waited for."""
        self._stopped.set()
        if self._thread is not None:
            self._thread.join(_CLOSE_SECONDS)
            self._thread = None

    def _run(self) -> None:
        while True:
            try:
                self.step()
                self.looked.set()
            except _FAILURES:
                logger.exception("the assignments of shards could not be followed")
            if self._stopped.wait(POLL_SECONDS):
                return

    def _prune(self, before: datetime) -> int:
        used = {digest for held in self._held.values() for digest in held.digests}
        return prune_cache(self._cache_dir, used, before)

    def _all_held(self) -> set[Shard]:
        return {(*place, number) for place, held in self._held.items() for number in held.shards}

    def _open(self, shard: Shard, snapshot: ShardedSnapshot) -> None:
        if self._clock() < self._retry_at.get(shard, 0.0):
            return
        place, number = (shard[0], shard[1]), shard[2]
        held = self._held.get(place)
        if held is None:
            held = HeldSnapshot(self._database, self._objects, self._cache_dir, snapshot, self._clock)
        try:
            held.open(number, lambda opened: warm(opened, self._stopped))
        except _FAILURES:
            self._retry_at[shard] = self._clock() + _RETRY_SECONDS
            logger.exception("shard %s of snapshot %s of %s could not be opened", number, shard[1], shard[0])
            return
        self._retry_at.pop(shard, None)
        self._held = {**self._held, place: held}
        logger.info("shard %s of snapshot %s of %s is open", number, shard[1], shard[0])

    def _let_go(self, kept: Collection[Shard]) -> None:
        now, held = self._clock(), self._all_held()
        self._unneeded_since = {
            shard: self._unneeded_since.get(shard, now) for shard in held if shard not in kept
        }
        for shard, since in self._unneeded_since.items():
            if now - since >= LINGER_SECONDS:
                self._held[shard[0], shard[1]].drop(shard[2])
                logger.info("shard %s of snapshot %s of %s is let go", shard[2], shard[1], shard[0])
        self._held = {place: one for place, one in self._held.items() if one.shards}

    def _keep_up(self, published: Mapping[SpaceKey, PublishedShards]) -> None:
        """Bring the writes where nobody asks, so that whoever asks next need not wait for them."""
        for (key, number), held in self._held.items():
            space = published.get(key)
            if (
                space is not None
                and number == space.snapshot.number
                and self._clock() - held.asked_at > _IDLE_SECONDS
            ):
                try:
                    held.keep_up(space.sequence)
                except NotFound:
                    logger.info("writes of %s were collected meanwhile", key)
