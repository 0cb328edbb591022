"""Which spaces a process opens before anybody asks it for them, and which it lets go.

A process that serves ``core@7/item`` opens ``core@8/item`` as soon as that is published, so that an alias may
move there; and any version that somebody is about to move an alias to. Decisions are pure functions.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select

from bedplate_store.database import ReadSession
from bedplate_store.spaces import SpaceKey
from bedplate_store.tables.spaces import SpaceRow


@dataclass(frozen=True, slots=True)
class Openable:
    """A space that holds something. ``snapshot`` is 0 where only writes exist; ``wanted``: an alias is about
    to move here."""

    key: SpaceKey
    snapshot: int
    wanted: bool


def openable(session: ReadSession, served: Iterable[SpaceKey], now: datetime) -> list[Openable]:
    """The spaces of every version that are called as those ``served``, of the same foundations."""
    names = {(key.foundation, key.space) for key in served}
    if not names:
        return []
    query = select(SpaceRow).where(
        SpaceRow.foundation.in_({foundation for foundation, _ in names}),
        SpaceRow.space.in_({space for _, space in names}),
        SpaceRow.snapshot.is_not(None) | (SpaceRow.sequence > 0),
    )
    return [
        Openable(
            SpaceKey(row.foundation, row.version, row.space),
            row.snapshot or 0,
            row.wanted_until is not None and row.wanted_until > now,
        )
        for row in session.scalars(query)
        if (row.foundation, row.space) in names
    ]


def ahead(served: Collection[SpaceKey], known: Iterable[Openable]) -> set[SpaceKey]:
    """What to open ahead: of each space the newest published version above those served, and what is wanted.

    Only the newest: a process holds one snapshot more than it serves, however many versions wait.
    """
    newest: dict[tuple[str, str], SpaceKey] = {}
    for key in served:
        name = (key.foundation, key.space)
        newest[name] = max(newest.get(name, key), key)
    highest = dict(newest)
    wanted = set()
    for one in known:
        name = (one.key.foundation, one.key.space)
        if name not in newest:
            continue
        if one.wanted:
            wanted.add(one.key)
        if one.snapshot and one.key > highest[name]:
            highest[name] = one.key
    return wanted | {key for name, key in highest.items() if key != newest[name]}
