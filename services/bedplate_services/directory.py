"""Which reader answers ``core@production/item`` right now.

The hot path asks here on every request, so the usual answer costs two dictionary look-ups: what the reference
means, and that space's newest reader. Aliases move under us: an answer is fresh for a moment, then renewed in
the background while the old one still serves, and never used once it is older than ``stale_seconds``.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from starlette.concurrency import run_in_threadpool

from bedplate.databases import DATABASE_AWAY
from bedplate.errors import NotFound, SpaceNotReady
from bedplate.references import VersionReference
from bedplate_registry import versions
from bedplate_registry.database import Database
from bedplate_services.logging import get_logger
from bedplate_store.readers import SpaceReader, SpaceReaders
from bedplate_store.shard_routing import RemoteSpace, ShardRouting
from bedplate_store.spaces import SpaceKey

_log = get_logger(__name__)
_Address = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Located:
    """A reader, and the version that the reference meant when it was opened (``core@7``).

    Attributes:
        reader: in this process, or what store nodes are asked for.
    """

    version: str
    space: str
    reader: SpaceReader | RemoteSpace
    opened_at: float

    @property
    def here(self) -> SpaceReader:
        """The reader, where the space is not for store nodes."""
        assert isinstance(self.reader, SpaceReader)
        return self.reader


class SpaceDirectory:
    """Belongs to one event loop; only ``forget``, ``resolve`` and ``newest`` may be called by other threads.

    Args:
        routing: where to ask for spaces that store nodes serve; None: this process serves all.
        fresh_seconds: how long an answer is used without asking again.
        stale_seconds: how long it may serve while a newer one is being opened.
        outage_seconds: how long aliases mean what they meant, and shards lie where they lay, while the
            databases are away.
    """

    def __init__(
        self,
        registry: Database,
        readers: SpaceReaders,
        *,
        routing: ShardRouting | None = None,
        fresh_seconds: float = 0.25,
        stale_seconds: float = 1.0,
        outage_seconds: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._registry = registry
        self._readers = readers
        self._routing = routing
        self._fresh_seconds = fresh_seconds
        self._stale_seconds = stale_seconds
        self._outage_seconds = outage_seconds
        self._meant: dict[str, tuple[int, float]] = {}
        self._found: dict[SpaceKey, tuple[RemoteSpace | None, float]] = {}
        self._clock = clock
        self._generation = 0
        self._located: dict[_Address, Located] = {}
        self._opening: dict[tuple[int, _Address], asyncio.Task[Located]] = {}

    async def locate(self, reference: str, space: str) -> Located:
        """The current reader of a space.

        Raises:
            InvalidRequest: the reference is not one.
            NotFound: no such foundation, alias, version or space.
            SpaceNotReady: nothing was published or written there yet.
        """
        located = self.at_hand(reference, space)
        return located if located is not None else await asyncio.shield(self._open((reference, space)))

    def at_hand(self, reference: str, space: str) -> Located | None:
        """The current reader of a space if it can be told without waiting."""
        address = (reference, space)
        located = self._located.get(address)
        if located is None:
            return None
        # What a reference means is asked for now and then; the newest writes to that are at hand.
        if not isinstance(located.reader, RemoteSpace):
            newest = self._readers.current(located.reader)
            if newest is not located.reader:
                located = self._located[address] = replace(located, reader=newest)
        age = self._clock() - located.opened_at
        if age < self._fresh_seconds:
            return located
        if age < self._stale_seconds:
            self._open(address)
            return located
        return None

    def adopt(self, reference: str, located: Located) -> None:
        """Ask store nodes for what was found newer on the way: a write that was seen once stays seen."""
        known = self._located.get((reference, located.space))
        if known is not None and known.version == located.version:
            self._located[reference, located.space] = located

    def resolve(self, reference: str) -> tuple[str, int]:
        """``(foundation, version number)`` of a reference; asks the registry about aliases. While that is
        away, an alias means what it last meant; nobody can move it meanwhile.

        Raises:
            InvalidRequest, NotFound.
        """
        parsed = VersionReference.parse(reference)
        if parsed.number is not None:
            return parsed.foundation, parsed.number
        asked_at = self._clock()
        try:
            with self._registry.read() as session:
                number = versions.resolve(session, parsed).version
        except DATABASE_AWAY:
            number, told_at = self._meant.get(reference, (0, -math.inf))
            if asked_at - told_at >= self._outage_seconds:
                raise
            return parsed.foundation, number
        except NotFound:
            self._meant.pop(reference, None)
            raise
        self._meant[reference] = number, asked_at
        return parsed.foundation, number

    def newest(self, key: SpaceKey) -> SpaceReader | RemoteSpace:
        """What sees every write acknowledged before this call; may be called from other threads.

        Raises:
            NotFound, SpaceNotReady.
        """
        return self._remote(key) or self._readers.refresh_now(*key)

    def forget(self) -> None:
        """Answer nothing opened before now; called after this process moved an alias or wrote to a space."""
        self._generation += 1
        self._located, self._meant = {}, {}

    def _open(self, address: _Address) -> asyncio.Task[Located]:
        slot = (self._generation, address)
        task = self._opening.get(slot)
        if task is None:
            task = asyncio.create_task(self._renew(slot))
            self._opening[slot] = task
            task.add_done_callback(lambda done: self._opened(slot, done))
        return task

    def _opened(self, slot: tuple[int, _Address], task: asyncio.Task[Located]) -> None:
        del self._opening[slot]
        if task.cancelled() or task.exception() is None:
            return
        # The next request asks again and is told the error itself.
        self._located.pop(slot[1], None)
        _log.info("space cannot be opened", address="/".join(slot[1]), reason=str(task.exception()))

    async def _renew(self, slot: tuple[int, _Address]) -> Located:
        generation, address = slot
        located = await run_in_threadpool(self._open_now, *address)
        if generation == self._generation:
            self._located[address] = located
            asyncio.get_running_loop().call_later(
                self._stale_seconds, self._expire, address, located.opened_at
            )
        return located

    def _expire(self, address: _Address, opened_at: float) -> None:
        """What is too old to answer must not keep its reader's files mapped."""
        located = self._located.get(address)
        if located is not None and located.opened_at == opened_at:
            del self._located[address]

    def _open_now(self, reference: str, space: str) -> Located:
        asked_at = self._clock()
        foundation, version = self.resolve(reference)
        reader = self._routed(SpaceKey(foundation, version, space)) or self._readers.get(
            foundation, version, space
        )
        return Located(f"{foundation}@{version}", space, reader, asked_at)

    def _routed(self, key: SpaceKey) -> RemoteSpace | None:
        """What :meth:`_remote` says; while the store's database is away, what it last said."""
        asked_at = self._clock()
        try:
            found = self._remote(key)
        except DATABASE_AWAY:
            found, told_at = self._found.get(key, (None, -math.inf))
            if asked_at - told_at >= self._outage_seconds:
                raise
            return found
        self._found[key] = found, asked_at
        return found

    def _remote(self, key: SpaceKey) -> RemoteSpace | None:
        if self._routing is None:
            return None
        try:
            return self._routing.find(key)
        except SpaceNotReady:
            # What became sharded a moment ago is open here and serves on until it is open there.
            if key in self._readers.opened():
                return None
            raise
