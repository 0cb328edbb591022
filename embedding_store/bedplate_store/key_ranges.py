"""Ranges of sorted string keys, by which jobs cut users and items into partitions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from sqlalchemy import Select, func, select

from bedplate_store.database import ReadSession


@dataclass(frozen=True, slots=True)
class KeyRange:
    """Keys ``start <= key < end``, bytewise; None is unbounded. ``count`` keys were in it when it was cut."""

    start: str | None
    end: str | None
    count: int


def cut_key_ranges(
    total: int, partitions: int, keys_at: Callable[[Sequence[int]], Sequence[str]]
) -> list[KeyRange]:
    """Cut ``total`` sorted keys into at most ``partitions`` ranges of nearly equal count that cover them all.

    The outermost bounds are open, so a key that appears later still falls into exactly one range.

    Args:
        keys_at: the keys at these positions among the sorted keys, ascending.
    """
    if total == 0:
        return []
    partitions = max(1, min(partitions, total))
    cuts = [total * index // partitions for index in range(partitions + 1)]
    bounds = [None, *keys_at(cuts[1:-1]), None] if partitions > 1 else [None, None]
    return [
        KeyRange(start, end, last - first)
        for (start, end), (first, last) in zip(pairwise(bounds), pairwise(cuts), strict=True)
    ]


def keys_at(session: ReadSession, keys: Select[Any], positions: Sequence[int]) -> Sequence[str]:
    """The different keys of a query at ``positions``, ascending; the database does the counting."""
    key = keys.subquery().c[0]
    numbered = select(key.label("key"), func.row_number().over(order_by=key).label("number")).subquery()
    wanted = numbered.c.number.in_([position + 1 for position in positions])
    return session.scalars(select(numbered.c.key).where(wanted).order_by(numbered.c.number)).all()
