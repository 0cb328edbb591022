"""The processes that serve spaces: what each says it has open, and whether an alias may move.

Each process writes one row and keeps it fresh; one that is silent for ``LIVE_SECONDS`` counts as dead, so a
killed one holds nobody up for longer. What a process says is a hint about speed, never about correctness: a
process that says nothing opens on the first request what another one would have had open.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import delete, select

from bedplate.wire.store import OpenReader
from bedplate_store.database import ReadSession, WriteSession
from bedplate_store.spaces import SpaceKey, find_row, space_row
from bedplate_store.tables.spaces import ReaderRow, SpaceRow

HEARTBEAT_SECONDS = 2.0
LIVE_SECONDS = 8.0
_FORGET_SECONDS = 3600.0


@dataclass(frozen=True, slots=True)
class OpenSpace:
    """A space that a process has open; ``in_use``: somebody asked for it not long ago.

    ``shards`` of a store node: the snapshots that it answers for, each with the shards it has of it.
    """

    snapshot: int
    sequence: int
    in_use: bool
    shards: tuple[tuple[int, tuple[int, ...]], ...] = ()

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> OpenSpace:
        shards = tuple((snapshot, tuple(numbers)) for snapshot, numbers in document["shards"])
        return cls(**{**document, "shards": shards})


@dataclass(frozen=True, slots=True)
class ReaderProcess:
    """A process, and what it has open.

    Attributes:
        service: what it is part of: ``api`` or ``inference``.
        process: which one it is, for people: host name and process id.
        follows: its requests name versions by alias, so a moving alias takes it along.
        node: its name as a store node; None: it is none.
    """

    id: str
    service: str
    process: str
    url: str
    follows: bool
    spaces: Mapping[SpaceKey, OpenSpace]
    node: str | None = None


@dataclass(frozen=True, slots=True)
class Target:
    """Where a space of an alias is about to be read from; None: the version has nothing there to read."""

    key: SpaceKey
    snapshot: int | None


@dataclass(frozen=True, slots=True)
class Unready:
    """A process that serves ``space`` and lacks it in the version an alias is to move to, and why."""

    process: str
    space: str
    reason: str


def announce(session: WriteSession, reader: ReaderProcess, *, started_at: datetime, now: datetime) -> None:
    """Write what a process has open, and that it lives."""
    session.execute(delete(ReaderRow).where(ReaderRow.seen_at < now - timedelta(seconds=_FORGET_SECONDS)))
    session.merge(
        ReaderRow(
            id=reader.id,
            service=reader.service,
            process=reader.process,
            url=reader.url,
            follows=reader.follows,
            node=reader.node,
            spaces={str(key): asdict(space) for key, space in reader.spaces.items()},
            started_at=started_at,
            seen_at=now,
        )
    )


def withdraw(session: WriteSession, reader_id: str) -> None:
    """The process ends."""
    session.execute(delete(ReaderRow).where(ReaderRow.id == reader_id))


def served(session: ReadSession, now: datetime, *, follows: bool = True) -> set[SpaceKey]:
    """What living processes that follow aliases, or those that do not, are asked for. Store nodes, which are
    told what to serve, are neither.
    """
    living = (row for row in _living(session, now) if row.node is None)
    readers = (_process(row) for row in living if row.follows == follows)
    return {key for reader in readers for key, space in reader.spaces.items() if space.in_use}


def living(session: ReadSession, now: datetime) -> list[tuple[ReaderProcess, datetime]]:
    """The living processes, and when each last told what it has open."""
    return [(_process(row), row.seen_at) for row in _living(session, now)]


def list_readers(session: ReadSession, key: SpaceKey, now: datetime) -> list[OpenReader]:
    """The living processes that have the space open, by process.

    Raises:
        NotFound: no such space.
    """
    row = space_row(session, key)
    found = []
    for reader in _living(session, now):
        space = _process(reader).spaces.get(key)
        if space is not None:
            found.append(
                OpenReader(
                    reader=reader.id,
                    service=reader.service,
                    process=reader.process,
                    url=reader.url,
                    snapshot=space.snapshot,
                    sequence=space.sequence,
                    newest=space.snapshot == (row.snapshot or 0),
                    in_use=space.in_use,
                    node=reader.node,
                    shards=_newest_shards(space),
                    seen_at=reader.seen_at,
                )
            )
    return found


def _newest_shards(space: OpenSpace) -> list[int]:
    """Of the newest snapshot."""
    return [number for snapshot, numbers in space.shards if snapshot == space.snapshot for number in numbers]


def want(session: WriteSession, foundation: str, version: int, until: datetime) -> None:
    """Have the processes that serve the foundation's spaces open those of ``version``, until then."""
    query = select(SpaceRow).where(SpaceRow.foundation == foundation, SpaceRow.version == version)
    for row in session.scalars(query.order_by(SpaceRow.id).with_for_update()):
        row.wanted_until = until


def unready_for(
    session: ReadSession, foundation: str, current: int, target: int, now: datetime
) -> list[Unready]:
    """Who would have to open something when an alias moves from one version to another; empty: nobody."""
    readers = [_process(row) for row in _living(session, now) if row.follows]
    names = {name for reader in readers for name in _names_in_use(reader, foundation, current)}
    targets = [_target(session, SpaceKey(foundation, target, name)) for name in sorted(names)]
    return unready(readers, current, targets)


def unready(readers: Iterable[ReaderProcess], current: int, targets: Iterable[Target]) -> list[Unready]:
    """The same, decided on what is known."""
    targets, found = list(targets), []
    for reader in readers:
        for target in targets:
            foundation, _, name = target.key
            if name in _names_in_use(reader, foundation, current):
                reason = _lacks(reader.spaces.get(target.key), target)
                if reason is not None:
                    found.append(Unready(reader.process, str(target.key), reason))
    return found


def _lacks(opened: OpenSpace | None, target: Target) -> str | None:
    if target.snapshot is None:
        return "nothing is published there"
    if opened is None:
        return "not open yet"
    if opened.snapshot != target.snapshot:
        return f"at snapshot {opened.snapshot}, not yet {target.snapshot}"
    return None


def _names_in_use(reader: ReaderProcess, foundation: str, version: int) -> set[str]:
    return {
        key.space
        for key, space in reader.spaces.items()
        if space.in_use and (key.foundation, key.version) == (foundation, version)
    }


def _target(session: ReadSession, key: SpaceKey) -> Target:
    row = find_row(session, key)
    if row is None or (row.snapshot is None and row.sequence == 0):
        return Target(key, None)
    return Target(key, row.snapshot or 0)


def nodes(session: ReadSession, now: datetime) -> tuple[list[ReaderProcess], dict[str, str]]:
    """The living store nodes in the order in which they started, two of one name while one replaces the
    other; and where each node that was heard of lately answers, or answered: URL by name.
    """
    query = select(ReaderRow).where(ReaderRow.node.is_not(None)).order_by(ReaderRow.started_at, ReaderRow.id)
    rows = list(session.scalars(query))
    since = now - timedelta(seconds=LIVE_SECONDS)
    living = [_process(row) for row in rows if row.seen_at >= since]
    last = sorted(rows, key=lambda row: row.seen_at)  # of a name the one seen last
    return living, {str(row.node): row.url for row in last}


def _living(session: ReadSession, now: datetime) -> list[ReaderRow]:
    since = now - timedelta(seconds=LIVE_SECONDS)
    query = select(ReaderRow).where(ReaderRow.seen_at >= since)
    return list(session.scalars(query.order_by(ReaderRow.service, ReaderRow.process, ReaderRow.id)))


def _process(row: ReaderRow) -> ReaderProcess:
    spaces = {SpaceKey.parse(text): OpenSpace.from_json(space) for text, space in row.spaces.items()}
    return ReaderProcess(row.id, row.service, row.process, row.url, row.follows, spaces, row.node)
