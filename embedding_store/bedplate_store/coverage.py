"""Coverage: the share of the catalogue, or of the active users, that has a vector in what is served.

Asking for every key would read the whole catalogue. A sample of the space's keys is looked for in the
catalogue instead, which is two short queries and a count however large both are.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Select, func, select

from bedplate_store.database import ReadSession
from bedplate_store.keys import Keys, take, to_python
from bedplate_store.space_reader import SpaceReader
from bedplate_store.spaces import find_row
from bedplate_store.tables.records import ItemRow, TimelineRow
from bedplate_store.times import microseconds

Entity = Literal["item", "user"]
ACTIVE = timedelta(days=30)
"""A user without an event for longer is not expected to have a vector."""
SAMPLE_KEYS = 1_000


def coverage(
    session: ReadSession, reader: SpaceReader, now: datetime, random: np.random.Generator
) -> tuple[Entity, float] | None:
    """What the space holds, and which share of them have a vector that ``reader`` shows, 0 to 1.

    Exact where the space has no more than ``SAMPLE_KEYS`` rows, else within some hundredths. None: the space
    holds neither items nor users, or there are none.
    """
    entity = _entity(session, reader)
    if entity is None:
        return None
    expected = session.scalar(select(func.count()).select_from(_entities(entity, now).subquery())) or 0
    if expected == 0:
        return None
    covered = sum(
        rows * _share(session, keys, entity, now) for keys, rows in _samples(reader, random) if rows
    )
    return entity, min(1.0, covered / expected)


def _entity(session: ReadSession, reader: SpaceReader) -> Entity | None:
    row = find_row(session, reader.space)
    known: Mapping[str | None, Entity] = {"item": "item", "user": "user"}
    # A checkpoint's own signature names its spaces after their entities and says no more.
    return None if row is None else known.get(row.entity or row.space)


def _samples(reader: SpaceReader, random: np.random.Generator) -> list[tuple[Keys, float]]:
    """Keys of the snapshot that are still there, keys of later writes that it lacks; each with how many such
    rows there are, as far as the sample tells.
    """
    samples: list[tuple[Keys, float]] = []
    base, overlay = reader.base, reader.overlay
    if base is not None and base.info.rows:
        drawn = _drawn(base.info.rows, random)
        keys = take(base.keys, drawn)
        found = np.flatnonzero(reader.lookup(to_python(keys)).found)
        samples.append((take(keys, found), base.info.rows * len(found) / len(drawn)))
    written = np.flatnonzero(overlay.living)
    if len(written):
        drawn = written[_drawn(len(written), random)]
        keys = overlay.keys_at(drawn)
        new = np.arange(len(drawn)) if base is None else np.flatnonzero(base.find(keys) < 0)
        samples.append((take(keys, new), len(written) * len(new) / len(drawn)))
    return samples


def _drawn(rows: int, random: np.random.Generator) -> NDArray[np.int64]:
    """So many different numbers below ``rows``, all of them where they are few."""
    if rows <= SAMPLE_KEYS:
        return np.arange(rows)
    return random.choice(rows, SAMPLE_KEYS, replace=False)


def _share(session: ReadSession, keys: Keys, entity: Entity, now: datetime) -> float:
    """Which share of ``keys`` is among the entities."""
    texts = [str(key) for key in to_python(keys)]
    entities = _entities(entity, now).subquery()
    query = select(func.count()).select_from(entities).where(entities.c[0].in_(texts))
    return (session.scalar(query) or 0) / len(texts)


def _entities(entity: Entity, now: datetime) -> Select[str]:
    if entity == "item":
        return select(ItemRow.key)
    return select(TimelineRow.user).where(TimelineRow.last_time >= microseconds(now - ACTIVE)).distinct()
