"""Sorted key columns side by side: cut into ranges of keys so small that one range fits in memory."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from heapq import heapify, heappop, heappush
from typing import TypeAlias

from bedplate_store.keys import Keys, StringKeys

Key: TypeAlias = int | bytes
"""One key as it is compared: strings by their UTF-8."""


@dataclass(frozen=True, slots=True)
class Stretch:
    """Keys ``start`` to ``end`` of the run number ``run``."""

    run: int
    start: int
    end: int

    def __len__(self) -> int:
        return self.end - self.start


def key_at(keys: Keys, row: int) -> Key:
    """The key at ``row``."""
    if isinstance(keys, StringKeys):
        return keys.heap[keys.offsets[row] : keys.offsets[row + 1] - 1].tobytes()
    return int(keys[row])


def slice_keys(keys: Keys, start: int, end: int) -> Keys:
    """Keys ``start`` to ``end``, without a copy of their bytes."""
    if isinstance(keys, StringKeys):
        offsets = keys.offsets[start : end + 1]
        return StringKeys(keys.heap[offsets[0] : offsets[-1]], offsets - offsets[0])
    return keys[start:end]


def common_ranges(runs: Sequence[Keys], keys_at_once: int) -> Iterator[list[Stretch]]:
    """Walk sorted ``runs`` side by side, in ascending ranges of keys.

    Equal keys of different runs fall into one range. A range holds ``keys_at_once`` keys at most, or one of
    each run where there are more runs. A stretch of keys that belongs to one run alone, as do the partitions
    of an embedding, comes as a range of its own.
    """
    waiting = [(key_at(keys, 0), run, 0) for run, keys in enumerate(runs) if len(keys)]
    heapify(waiting)
    while waiting:
        active, last_key = _next_range(runs, waiting, keys_at_once)
        stretches = []
        for run, start in active:
            end = _end_of(runs[run], start, last_key, keys_at_once)
            if end > start:
                stretches.append(Stretch(run, start, end))
            if end < len(runs[run]):
                heappush(waiting, (key_at(runs[run], end), run, end))
        yield sorted(stretches, key=lambda stretch: stretch.run)


def _next_range(
    runs: Sequence[Keys], waiting: list[tuple[Key, int, int]], keys_at_once: int
) -> tuple[list[tuple[int, int]], Key]:
    """The runs that may have keys in the next range, each with its first one, and the range's last key."""

    def proposal(run: int, start: int) -> Key:
        return key_at(runs[run], min(start + share, len(runs[run])) - 1)

    _, run, start = heappop(waiting)
    active, share = [(run, start)], keys_at_once
    last_key = proposal(run, start)
    while waiting and waiting[0][0] <= last_key:  # type: ignore[operator]  # a column has keys of one type
        _, run, start = heappop(waiting)
        active.append((run, start))
        if keys_at_once // len(active) < share and share > 1:
            # One more doubling of the runs: each may take half of what it could before.
            share = max(1, share // 2)
            last_key = min(proposal(*each) for each in active)
        else:
            last_key = min(last_key, proposal(run, start))
    return active, last_key


def _end_of(keys: Keys, start: int, last_key: Key, keys_at_once: int) -> int:
    """Where the keys up to ``last_key`` end; it is never further than ``keys_at_once`` away."""
    end = min(start + keys_at_once, len(keys))
    if isinstance(keys, StringKeys):
        return start + bisect_right(range(start, end), last_key, key=lambda row: key_at(keys, row))
    return start + int(keys[start:end].searchsorted(last_key, side="right"))
