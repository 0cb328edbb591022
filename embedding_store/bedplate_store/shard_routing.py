"""Which store node to ask for which shard, and at which state of the space.

The assignments say who should have a shard; the nodes say who has it. A request goes to the owner if it has
the shard of the snapshot that is answered from, else to another node that still or already has it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from bedplate.errors import SpaceNotReady
from bedplate.stored_vectors import Storage
from bedplate.wire.registry import Dtype, KeyType
from bedplate_store import reader_processes
from bedplate_store.database import Database
from bedplate_store.reader_processes import ReaderProcess
from bedplate_store.shard_assignments import owners, read_assignments
from bedplate_store.shard_nodes import sharded_snapshot
from bedplate_store.shard_ranges import ShardRanges
from bedplate_store.spaces import SpaceKey, space_row
from bedplate_store.tables.spaces import SnapshotRow


class Route(NamedTuple):
    """Where to ask for a shard; ``node`` None: it is assigned to nobody; ``url`` None: it never ran."""

    node: str | None
    url: str | None


@dataclass(frozen=True, slots=True)
class RemoteSpace:
    """A space whose shards lie with store nodes, at one state.

    Attributes:
        routes: one for each shard.
    """

    space: SpaceKey
    dim: int
    dtype: Dtype
    key_type: KeyType
    snapshot: int
    sequence: int
    ranges: ShardRanges
    routes: tuple[Route, ...]

    @property
    def storage(self) -> Storage:
        return Storage(self.dtype, self.dim)


class Answerable(NamedTuple):
    """The snapshots that nodes answer for; of each, who has which shard: by (snapshot, shard), in the order
    in which they started.
    """

    holders: Mapping[tuple[int, int], Sequence[Route]]

    def snapshot(self) -> int | None:
        """The one of which most shards can be asked for, of these the newest; None: there is none."""
        counts: dict[int, int] = {}
        for number, _ in self.holders:
            counts[number] = counts.get(number, 0) + 1
        return max(counts, key=lambda number: (counts[number], number), default=None)


def answerable(key: SpaceKey, living: Sequence[ReaderProcess]) -> Answerable:
    """What the living nodes say."""
    holders: dict[tuple[int, int], list[Route]] = {}
    for process in living:
        opened = process.spaces.get(key)
        if opened is None or process.node is None:
            continue
        for snapshot, numbers in opened.shards:
            for number in numbers:
                holders.setdefault((snapshot, number), []).append(Route(process.node, process.url))
    return Answerable(holders)


def routes(
    snapshot: int, assigned: Sequence[str | None], known: Answerable, urls: Mapping[str, str]
) -> tuple[Route, ...]:
    """Whom to ask for each shard: the owner if it has it, and of two of that name the one that replaces the
    other; else whoever has it; else the owner all the same, which may have started again, or has it although
    it is about to end.
    """
    found = []
    for number, owner in enumerate(assigned):
        holders = known.holders.get((snapshot, number), ())
        owners = [holder for holder in holders if holder.node == owner]
        if owners or holders:
            found.append((owners or holders)[-1])
        else:
            found.append(Route(owner, None if owner is None else urls.get(owner)))
    return tuple(found)


class ShardRouting:
    """Asks the database; may be used by several threads."""

    def __init__(self, database: Database, now: Callable[[], datetime]) -> None:
        self._database = database
        self._now = now

    def find(self, key: SpaceKey) -> RemoteSpace | None:
        """The space as it is to be asked for just now; None: it is not for store nodes.

        Raises:
            NotFound: no such space.
            SpaceNotReady: no node has opened its shards yet.
        """
        with self._database.read() as session:
            assignments = read_assignments(session)
            if not assignments:
                return None
            row = space_row(session, key)
            current = None if row.snapshot is None else session.get(SnapshotRow, (row.id, row.snapshot))
            published = sharded_snapshot(row, current)
            if published is None or not any(owners(assignments, key, len(published))):
                return None
            living, urls = reader_processes.nodes(session, self._now())
            known = answerable(key, living)
            number = known.snapshot()
            if number is None:
                raise SpaceNotReady(
                    f"no store node has a shard of {key} open yet: ask again in a moment; `bedplate shards "
                    "list` shows which nodes they are assigned to.",
                    reference=str(key),
                )
            chosen = sharded_snapshot(row, session.get(SnapshotRow, (row.id, number)))
            assert chosen is not None  # nodes open nothing else
            assigned = owners(assignments, key, len(chosen))
            return RemoteSpace(
                space=key,
                dim=chosen.dim,
                dtype=chosen.dtype,
                key_type=chosen.key_type,
                snapshot=number,
                sequence=row.sequence,
                ranges=ShardRanges.of(chosen.document.shards),
                routes=routes(number, assigned, known, urls),
            )
