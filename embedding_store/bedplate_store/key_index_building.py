"""Filling the index of ``key_index``: a displacement for each bucket, such that no two keys share a slot.

By hash and displace: the buckets of most keys come first, while most slots are free, and each tries one
displacement after the other, all of one size at once. Nothing is random: equal keys have equal bytes.
Shapes: n keys of a part, c buckets of s keys each.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bedplate_store.key_index import MULTIPLIER, UNPLACED, WINDOW_BITS, Layout

_KEYS_AT_ONCE = 1 << 18
_KEYS_PER_PASS = 1 << 20
"""The column is read once for so many keys: some 40 MB at a time."""
_EMPTY = 2**32 - 1
_TRIES = 256
_KEYS_OF_BUCKET_MAX = 24
"""Five on average: only keys that are chosen to collide come together in larger ones."""
_WINDOW_MASK = np.array((1 << WINDOW_BITS) - 1, np.uint64)


@dataclass(frozen=True)
class _Part:
    """The keys of some neighbouring buckets, sorted by their hashes [n]."""

    first_bucket: int
    hashes: NDArray[np.uint64]
    rows: NDArray[np.uint32]


def index_of(keys: NDArray[np.int64], data: NDArray[np.uint8] | None = None) -> NDArray[np.uint8]:
    """The bytes of the index of the sorted ``keys`` [r], in ``data`` if it is given.

    Memory does not grow with the keys, but for the index itself.
    """
    layout = Layout.of(len(keys))
    data = np.empty(layout.bytes, np.uint8) if data is None else data
    displacements, slots = layout.displacements(data), layout.slots(data)
    displacements[:] = 0
    slots[:] = _EMPTY
    for number, part in enumerate(_parts(keys, layout)):
        start = number * layout.slots_per_part
        end, first = start + layout.slots_per_part, part.first_bucket
        theirs = slots[start:end]
        _fill(part, layout, start, displacements[first : first + layout.buckets_per_part], theirs)
        theirs[theirs == _EMPTY] = 0  # so that whatever a reader comes across is a row
    return data


def _parts(keys: NDArray[np.int64], layout: Layout) -> Iterator[_Part]:
    shift = np.array(64 - layout.bucket_bits, np.uint64)
    per_pass = max(1, _KEYS_PER_PASS * layout.parts // max(1, len(keys)))
    for first_part in range(0, layout.parts, per_pass):
        bounds = [
            part * layout.buckets_per_part
            for part in range(first_part, min(first_part + per_pass, layout.parts) + 1)
        ]
        hashes, rows = _between(keys, shift, bounds[0], bounds[-1])
        order = np.argsort(hashes, kind="stable")
        hashes, rows = hashes[order], rows[order]
        cuts = np.searchsorted(hashes >> shift, np.array(bounds, np.uint64))
        for bucket, start, end in zip(bounds, cuts, cuts[1:], strict=False):
            yield _Part(bucket, hashes[start:end], rows[start:end])


def _between(
    keys: NDArray[np.int64], shift: NDArray[np.uint64], first: int, end: int
) -> tuple[NDArray[np.uint64], NDArray[np.uint32]]:
    """Hashes and rows of the keys whose buckets are ``first`` to ``end``."""
    hashes, rows = [np.empty(0, np.uint64)], [np.empty(0, np.uint32)]
    for start in range(0, len(keys), _KEYS_AT_ONCE):
        some = np.asarray(keys[start : start + _KEYS_AT_ONCE]).view(np.uint64) * MULTIPLIER
        buckets = some >> shift
        inside = np.flatnonzero((buckets >= np.uint64(first)) & (buckets < np.uint64(end)))
        hashes.append(some[inside])
        rows.append((inside + start).astype(np.uint32))
    return np.concatenate(hashes), np.concatenate(rows)


def _fill(
    part: _Part,
    layout: Layout,
    first_slot: int,
    displacements: NDArray[np.uint64],
    slots: NDArray[np.uint32],
) -> None:
    """Hand out ``slots`` of one part to its buckets."""
    bits = np.uint64(64 - layout.bucket_bits)
    places = part.hashes >> (bits - np.uint64(WINDOW_BITS))  # the bucket, and in the low bits the place
    buckets = (part.hashes >> bits).astype(np.int64) - part.first_bucket
    counts = np.bincount(buckets, minlength=len(displacements))
    begins = np.cumsum(counts) - counts
    twice = np.flatnonzero(places[1:] == places[:-1])
    displacements[counts > _KEYS_OF_BUCKET_MAX] = UNPLACED
    displacements[buckets[twice]] = UNPLACED
    offsets = (places & _WINDOW_MASK).astype(np.int64)
    for size in range(min(int(counts.max(initial=0)), _KEYS_OF_BUCKET_MAX), 0, -1):
        alike = np.flatnonzero((counts == size) & (displacements == 0))
        members = begins[alike][:, None] + np.arange(size)
        found = _place(alike, offsets[members], part.rows[members], slots)
        # What a reader adds to bucket and place, modulo 2^64.
        lifted = (found + first_slot).astype(np.uint64)
        lifted -= (alike + part.first_bucket).astype(np.uint64) << np.uint64(WINDOW_BITS)
        displacements[alike] = np.where(found < 0, UNPLACED, lifted)


def _place(
    buckets: NDArray[np.int64],
    offsets_cs: NDArray[np.int64],
    rows_cs: NDArray[np.uint32],
    slots: NDArray[np.uint32],
) -> NDArray[np.int64]:
    """Write ``rows_cs`` into free slots; the displacement of each bucket [c], -1 where none was found."""
    found = np.full(len(buckets), -1, np.int64)
    span = np.uint64(len(slots) - (1 << WINDOW_BITS))
    pending = np.arange(len(buckets))
    for attempt in range(_TRIES):
        if len(pending) == 0:
            break
        drawn = (buckets[pending].astype(np.uint64) + np.uint64(attempt << 32)) * MULTIPLIER >> np.uint64(32)
        displacement = (drawn * span >> np.uint64(32)).astype(np.int64)
        wanted = offsets_cs[pending] + displacement[:, None]
        free = (slots[wanted] == _EMPTY).all(axis=1)
        trying, wanted = pending[free], wanted[free]
        # Two buckets may want one slot: the row that was written last has it.
        slots[wanted] = rows_cs[trying]
        has = (slots[wanted] == rows_cs[trying]).all(axis=1)
        # Take back what the others wrote, where nobody who has all of his wrote later.
        slots[wanted[~has]] = _EMPTY
        slots[wanted[has]] = rows_cs[trying[has]]
        found[trying[has]] = displacement[free][has]
        pending = pending[found[pending] < 0]
    return found
