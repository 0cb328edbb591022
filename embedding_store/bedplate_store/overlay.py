"""The writes that came after a snapshot, held in memory over it.

Slots are appended and never change, so overlays of different ages share one buffer, and a reader that holds
an old overlay goes on seeing exactly what it saw. The keys lie in a few sorted runs of geometric sizes, as in
a log-structured merge tree, so that new writes cost about what they hold and not what came before them.
Shapes: w keys written, s slots, r rows of the base, n keys asked for, d the dimension.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import cast

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from bedplate.stored_vectors import Storage, StoredRows
from bedplate.wire.registry import Dtype, KeyType
from bedplate_store.growing import with_room
from bedplate_store.keys import Column, Keys, build_column, concatenate, sort_last_wins, take
from bedplate_store.segments import Segment
from bedplate_store.slot_keys import SlotKeys

UNWRITTEN, DELETED = -2, -1


@dataclass(frozen=True, slots=True)
class Run:
    """Sorted keys [w] and the slot of each, :data:`DELETED` where it is deleted."""

    column: Column
    slots: NDArray[np.int64]


@dataclass(frozen=True)
class Overlay:
    """Attributes:
    base: what it lies over; None where there is no snapshot.
    runs: oldest first; of each key the newest run counts.
    vectors: [s, w] stored rows; some slots are superseded.
    living: [s] bool, the slots that no newer write replaced or deleted.
    base_living: [r] bool, the rows of the base that no write replaced or deleted; None: all.
    attributes: of the slots, for one write after the other: how many slots, and their attributes.
    """

    key_type: KeyType
    base: Segment | None
    runs: tuple[Run, ...]
    vectors: StoredRows
    slot_keys: SlotKeys
    living: NDArray[np.bool_]
    base_living: NDArray[np.bool_] | None
    attributes: tuple[tuple[int, pa.Table | None], ...] = ()

    @classmethod
    def empty(cls, key_type: KeyType, dim: int, dtype: Dtype, base: Segment | None = None) -> Overlay:
        vectors = Storage(dtype, dim).empty(0)
        return cls(key_type, base, (), vectors, SlotKeys.empty(key_type), np.empty(0, np.bool_), None)

    def __len__(self) -> int:
        """At least the number of keys written; 0 where there are none."""
        return sum(len(run.column) for run in self.runs)

    def find(self, keys: Keys) -> NDArray[np.int64]:
        """The slot of each key [n], :data:`DELETED`, or :data:`UNWRITTEN` where only the base knows it."""
        return _find(self.runs, keys)

    def keys_at(self, slots: NDArray[np.int64]) -> Keys:
        """The keys that were written to ``slots`` [n]."""
        return self.slot_keys.take(slots)

    @property
    def keys(self) -> Keys:
        """The distinct keys written or deleted [w], sorted."""
        return self._merged.column.keys

    @property
    def slots(self) -> NDArray[np.int64]:
        """The slot of each of ``keys`` [w], :data:`DELETED` where it is deleted."""
        return self._merged.slots

    @cached_property
    def _merged(self) -> Run:
        return _merge(self.runs, self.key_type)

    def extended(self, writes: Sequence[Segment]) -> Overlay:
        """This overlay with ``writes``, oldest first, on top.

        Only the newest overlay of a buffer may be extended, and by one thread at a time.
        """
        if not writes:
            return self
        used = len(self.vectors)
        total = used + sum(len(write.vectors) for write in writes)
        vectors = cast(StoredRows, with_room(self.vectors, total))
        runs, superseded = list(self.runs), [np.empty(0, np.int64)]
        for write in writes:
            count = len(write.vectors)
            vectors[used : used + count] = write.vectors
            run = _run_of(write, used)
            superseded.append(_find(runs, run.column.keys))
            _push(runs, run, self.key_type)
            used += count
        gone = np.concatenate(superseded)
        return Overlay(
            key_type=self.key_type,
            base=self.base,
            runs=tuple(runs),
            vectors=vectors,
            slot_keys=self.slot_keys.extended([write.keys for write in writes]),
            living=_without(with_room(self.living, total), len(self.living), gone[gone >= 0]),
            base_living=self._base_living(writes),
            attributes=(*self.attributes, *((len(write.vectors), write.attributes) for write in writes)),
        )

    def _base_living(self, writes: Sequence[Segment]) -> NDArray[np.bool_] | None:
        base, living = self.base, self.base_living
        if base is None or base.info.rows == 0:
            return None
        found = [base.find(keys) for write in writes for keys in (write.keys, write.tombstones)]
        rows = np.concatenate(found)
        rows = rows[rows >= 0]
        if living is not None:
            rows = rows[living[rows]]
        if len(rows) == 0:
            return living
        # Copied, a byte a row, because older readers go on with theirs.
        living = np.ones(base.info.rows, np.bool_) if living is None else living.copy()
        living[rows] = False
        return living


def _find(runs: Sequence[Run], keys: Keys) -> NDArray[np.int64]:
    found = np.full(len(keys), UNWRITTEN, np.int64)
    asked = np.arange(len(keys))
    for run in reversed(runs):
        if len(asked) == 0:
            break
        places = run.column.find(keys if len(asked) == len(keys) else take(keys, asked))
        hits = places >= 0
        found[asked[hits]] = run.slots[places[hits]]
        asked = asked[~hits]
    return found


def _run_of(write: Segment, first_slot: int) -> Run:
    """A write as a run: its keys have slots from ``first_slot`` on."""
    slots = np.arange(first_slot, first_slot + len(write.vectors))
    if len(write.tombstones) == 0:
        return Run(write.column, slots)
    deleted = Run(build_column(write.tombstones), np.full(len(write.tombstones), DELETED))
    return _merge((Run(write.column, slots), deleted), write.info.key_type)


def _push(runs: list[Run], run: Run, key_type: KeyType) -> None:
    """Put ``run`` on top; merged with those below until each run is over twice as long as the next."""
    while runs and len(runs[-1].column) <= 2 * len(run.column):
        run = _merge((runs.pop(), run), key_type)
    runs.append(run)


def _merge(runs: Sequence[Run], key_type: KeyType) -> Run:
    """One run with the newest slot of each key."""
    if len(runs) == 1:
        return runs[0]
    keys = concatenate([run.column.keys for run in runs], key_type)
    newest = sort_last_wins(keys)
    slots = np.concatenate([np.empty(0, np.int64), *(run.slots for run in runs)])
    return Run(build_column(take(keys, newest)), slots[newest])


def _without(living: NDArray[np.bool_], used: int, gone: NDArray[np.int64]) -> NDArray[np.bool_]:
    """``living`` with the slots from ``used`` on and without those ``gone``."""
    if len(gone) and int(gone.min()) < used:
        living = living.copy()  # older readers go on with theirs
    living[used:] = True
    living[gone] = False
    return living
