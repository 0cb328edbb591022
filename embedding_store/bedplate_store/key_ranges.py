"""Ranges of sorted string keys, by which jobs cut users and items into partitions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise


@dataclass(frozen=True, slots=True)
class KeyRange:
    """Keys ``start <= key < end``, bytewise; None is unbounded. ``count`` keys were in it when it was cut."""

    start: str | None
    end: str | None
    count: int


def cut_key_ranges(sorted_keys: Sequence[str], partitions: int) -> list[KeyRange]:
    """Cut ``sorted_keys`` into at most ``partitions`` ranges of nearly equal count that cover all keys.

    The outermost bounds are open, so a key that appears later still falls into exactly one range.
    """
    total = len(sorted_keys)
    if total == 0:
        return []
    partitions = max(1, min(partitions, total))
    cuts = [total * index // partitions for index in range(partitions + 1)]
    return [
        KeyRange(
            start=None if first == 0 else sorted_keys[first],
            end=None if last == total else sorted_keys[last],
            count=last - first,
        )
        for first, last in pairwise(cuts)
    ]
