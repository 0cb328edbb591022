"""The shards of a snapshot that a store node has open, at the sequences it is asked for.

All shards of one answer must see the same writes, whichever nodes they lie on. So whoever asks names the
snapshot and the sequence, and a node answers for exactly these: it brings its writes up to that sequence, and
remembers what it was lately. Shapes: n keys, Q queries, K results, d the dimension.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bedplate.codecs import VectorDtype, Vectors
from bedplate.wire.filters import Filter
from bedplate.wire.registry import Dtype, KeyType, Metric
from bedplate_store.database import Database
from bedplate_store.filters import FilterCache
from bedplate_store.indexes import IndexDocument, RowSelection, VectorIndex, index_key, open_index
from bedplate_store.keys import Keys, RawKeys, parse_keys, take, to_python
from bedplate_store.mapping import local_file
from bedplate_store.objects import ObjectStore
from bedplate_store.opening import OpenSnapshot
from bedplate_store.overlay import Overlay
from bedplate_store.scoring import Rows, Scores
from bedplate_store.segment_parts import SegmentPart, rows_of
from bedplate_store.segments import Segment, open_segment
from bedplate_store.shard_hits import merged
from bedplate_store.shard_ranges import ShardRanges
from bedplate_store.space_reader import LookupResult, SearchResult, SpaceReader
from bedplate_store.space_scans import PinnedState, find_state
from bedplate_store.spaces import SpaceKey

KEPT_SECONDS = 5.0
"""How long a state is remembered that newer writes replaced: longer than anybody goes on asking for it."""


class ShardMissing(Exception):
    """A shard, or the whole snapshot, is not open here."""


class SequencePassed(Exception):
    """The newest state here is ``sequence``, and the one asked for is older and not remembered."""

    def __init__(self, sequence: int) -> None:
        super().__init__(sequence)
        self.sequence = sequence


@dataclass(frozen=True, slots=True)
class ShardedSnapshot:
    """A snapshot that is cut into shards, as the database has it."""

    key: SpaceKey
    number: int
    dim: int
    dtype: Dtype
    metric: Metric
    key_type: KeyType
    base: str
    document: IndexDocument

    def __len__(self) -> int:
        return len(self.document.shards)


class ShardGroup:
    """Some shards at one state, answering as one reader does."""

    def __init__(self, ranges: ShardRanges, readers: Mapping[int, SpaceReader]) -> None:
        self._ranges = ranges
        self._readers = readers
        first = next(iter(readers.values()))
        self.dim = first.dim
        self.storage = first.storage
        self.key_type: KeyType = first.key_type
        self.snapshot, self.sequence = first.snapshot, first.sequence
        self._joint = _joint([readers[number] for number in sorted(readers)])

    def lookup(self, keys: RawKeys, dtype: VectorDtype | None = None) -> LookupResult:
        """The vectors of ``keys`` [n], all of which belong to these shards, in ``dtype``, as a reader's."""
        if self._joint is not None:
            return self._joint.lookup(keys, dtype)
        parsed = parse_keys(keys, self.key_type)
        shards = self._ranges.shard_of(parsed)
        found = np.zeros(len(keys), np.bool_)
        vectors: Vectors = np.zeros((len(keys), self.dim), dtype or self.storage.answers)
        for number, reader in self._readers.items():
            mine = np.flatnonzero(shards == number)
            if len(mine):
                result = reader.lookup(_raw(take(parsed, mine)), dtype)
                found[mine], vectors[mine] = result.found, result.vectors
        return LookupResult(found, vectors, self.snapshot, self.sequence)

    def search(
        self,
        vectors: NDArray[np.float32],
        k: int,
        ef: int | None = None,
        recall: float | None = None,
        filter: Filter | None = None,
    ) -> SearchResult:
        """The nearest ``k`` rows of these shards for each of ``vectors`` [Q, d], as a reader's ``search``."""
        if self._joint is not None and (filter is None or len(self._readers) == 1):
            return self._joint.nearest(vectors, k, ef, recall, filter)
        results = [reader.nearest(vectors, k, ef, recall, filter) for reader in self._readers.values()]
        keys, scores = merged([(result.keys, result.scores) for result in results], k)
        return SearchResult(keys, scores, results[0].found, self.snapshot, self.sequence)


class HeldSnapshot:
    """A snapshot of which some shards are open here.

    ``open`` and ``drop`` belong to one thread; the rest may be called from any.
    """

    def __init__(
        self,
        database: Database,
        objects: ObjectStore,
        cache_dir: Path,
        snapshot: ShardedSnapshot,
        clock: Callable[[], float],
    ) -> None:
        self.snapshot = snapshot
        self.ranges = ShardRanges.of(snapshot.document.shards)
        self.asked_at = clock()
        self._database = database
        self._objects = objects
        self._cache_dir = cache_dir
        self._clock = clock
        self._lock = threading.Lock()
        self._filters = FilterCache()
        self._base: Segment | None = None
        self._views: dict[int, dict[int, SpaceReader]] = {}
        self._replaced_at: dict[int, float] = {}
        self._groups: dict[tuple[int, tuple[int, ...]], ShardGroup] = {}
        self._sequence = -1

    @property
    def shards(self) -> tuple[int, ...]:
        """What is open."""
        return tuple(sorted(self._views.get(self._sequence, ())))

    @property
    def sequence(self) -> int:
        """The newest seen; -1 while nothing is open."""
        return self._sequence

    @property
    def digests(self) -> set[str]:
        """Of what is mapped."""
        shards = self.snapshot.document.shards
        return {self.snapshot.base, *(shards[number].digest for number in self.shards)}

    def open(self, number: int, warm: Callable[[OpenSnapshot], None] = lambda _opened: None) -> None:
        """Open one more shard; ``warm`` is called before anybody can ask for it.

        Raises:
            NotFound, SnapshotGone: its objects or writes were collected.
            ObjectDamaged: an object is not what was written.
        """
        snapshot = self.snapshot
        if self._base is None:
            self._base = open_segment(self._objects, snapshot.base, self._cache_dir)
        shard = snapshot.document.shards[number]
        part, document = rows_of(self._base, shard.start, shard.stop), snapshot.document.of_shard(number)
        paths = [
            local_file(self._objects, index_key(digest), self._cache_dir, bytes_=size, sha256=digest)
            for digest, size in document.files
        ]
        index = open_index(paths, document, part, snapshot.metric)
        warm(OpenSnapshot(snapshot.number, part, index, files=tuple(paths)))
        with self._lock:
            sequence = None if self._sequence < 0 else self._sequence
            state = find_state(self._database, snapshot.key, snapshot.number, sequence)
            overlay = Overlay.empty(snapshot.key_type, snapshot.dim, snapshot.dtype, part)
            reader = self._reader(part, index, self._above(overlay, number, state, len(state.writes)), state)
            self._show(state.sequence, {**self._views.get(state.sequence, {}), number: reader})

    def drop(self, number: int) -> None:
        """Close a shard; its files are unmapped when the last request that uses them has ended."""
        with self._lock:
            self._views = {
                sequence: {shard: reader for shard, reader in readers.items() if shard != number}
                for sequence, readers in self._views.items()
            }
            self._groups = {}

    def at(self, sequence: int, shards: tuple[int, ...]) -> ShardGroup:
        """Some shards with exactly the writes up to ``sequence``.

        Raises:
            ShardMissing: one of them is not open.
            SequencePassed: that is in the past.
            NotFound: there is no such write.
            SnapshotGone: its writes were compacted and collected.
        """
        self.asked_at = self._clock()
        group = self._groups.get((sequence, shards))
        if group is not None:
            return group
        with self._lock:
            readers = self._views.get(sequence)
            if readers is None:
                readers = self._advance(sequence)
            missing = [number for number in shards if number not in readers]
            if missing:
                raise ShardMissing(f"shards {missing} of {self.snapshot.key} are not open here")
            group = ShardGroup(self.ranges, {number: readers[number] for number in shards})
            self._groups[sequence, shards] = group
            return group

    def keep_up(self, sequence: int) -> None:
        """See the writes up to ``sequence``, which nobody has asked for yet."""
        with self._lock:
            if 0 <= self._sequence < sequence:
                self._advance(sequence)

    def _advance(self, sequence: int) -> dict[int, SpaceReader]:
        if self._sequence < 0:
            raise ShardMissing(f"nothing of {self.snapshot.key} is open here")
        if sequence < self._sequence:
            raise SequencePassed(self._sequence)
        newer = sequence - self._sequence
        state = find_state(self._database, self.snapshot.key, self.snapshot.number, sequence)
        readers = {
            number: self._reader(
                reader.base, reader.index, self._above(reader.overlay, number, state, newer), state
            )
            for number, reader in self._views[self._sequence].items()
        }
        self._show(sequence, readers)
        return readers

    def _above(self, overlay: Overlay, number: int, state: PinnedState, newest: int) -> Overlay:
        """``overlay`` with what of the ``newest`` writes of a state belongs to a shard."""
        writes = state.writes[len(state.writes) - newest :]
        opened = (open_segment(self._objects, write.digest, self._cache_dir) for write in writes)
        parts = [self.ranges.part_of(write, number) for write in opened]
        return overlay.extended([part for part in parts if part is not None])

    def _reader(
        self, base: Segment | None, index: VectorIndex | None, overlay: Overlay, state: PinnedState
    ) -> SpaceReader:
        snapshot = self.snapshot
        return SpaceReader(
            space=snapshot.key,
            dim=snapshot.dim,
            dtype=snapshot.dtype,
            metric=snapshot.metric,
            key_type=snapshot.key_type,
            snapshot=snapshot.number,
            sequence=state.sequence,
            base=base,
            index=index,
            overlay=overlay,
            filters=self._filters,
        )

    def _show(self, sequence: int, readers: dict[int, SpaceReader]) -> None:
        now = self._clock()
        if self._sequence not in (-1, sequence):
            self._replaced_at[self._sequence] = now
        # A new dictionary: others may be reading the old one.
        old = {each for each, since in self._replaced_at.items() if now - since > KEPT_SECONDS}
        self._views = {
            each: shown for each, shown in {**self._views, sequence: readers}.items() if each not in old
        }
        self._replaced_at = {each: at for each, at in self._replaced_at.items() if each not in old}
        self._groups = {}
        self._sequence = sequence


class _Indexes:
    """The indexes of several shards as one :class:`VectorIndex`; rows count from the first shard's."""

    def __init__(self, parts: Sequence[SegmentPart], indexes: Sequence[VectorIndex]) -> None:
        self.kind = indexes[0].kind
        self.parameters = indexes[0].parameters
        self.rows = parts[-1].start + parts[-1].info.rows - parts[0].start
        self._indexes = [
            (index, part.start - parts[0].start) for part, index in zip(parts, indexes, strict=True)
        ]

    def search(
        self,
        queries_QD: NDArray[np.float32],
        k: int,
        *,
        ef: int | None = None,
        recall: float | None = None,
        among: RowSelection | None = None,
    ) -> tuple[Scores, Rows]:
        """The best ``k`` of all; of equal scores the smallest row comes first, which has the smallest key."""
        assert among is None  # a selection of rows belongs to one shard
        scores_VQK: list[Scores] = []
        rows_VQK: list[Rows] = []
        for index, start in self._indexes:
            scores, rows = index.search(queries_QD, k, ef=ef, recall=recall)
            scores_VQK.append(scores)
            rows_VQK.append(np.where(rows < 0, -1, rows + start))
        scores, rows = np.concatenate(scores_VQK, axis=1), np.concatenate(rows_VQK, axis=1)
        places = np.lexsort((rows, -scores), axis=1)[:, :k]
        return np.take_along_axis(scores, places, axis=1), np.take_along_axis(rows, places, axis=1)


def _joint(readers: Sequence[SpaceReader]) -> SpaceReader | None:
    """One reader for what several would answer, at a fraction of the calls; None where there are writes.

    It spans the rows from the first shard to the last. Of rows between them that belong to other shards
    nobody asks here, and no index has them.
    """
    first = readers[0]
    if len(readers) == 1:
        return first
    parts = [reader.base for reader in readers if isinstance(reader.base, SegmentPart)]
    indexes = [reader.index for reader in readers if reader.index is not None]
    if len(parts) != len(readers) or len(indexes) != len(readers) or any(len(one.overlay) for one in readers):
        return None
    last = parts[-1]
    return SpaceReader(
        space=first.space,
        dim=first.dim,
        dtype=first.dtype,
        metric=first.metric,
        key_type=first.key_type,
        snapshot=first.snapshot,
        sequence=first.sequence,
        base=rows_of(last.whole, parts[0].start, last.start + last.info.rows),
        index=_Indexes(parts, indexes),
        overlay=Overlay.empty(first.key_type, first.dim, first.dtype),
    )


def _raw(keys: Keys) -> RawKeys:
    return keys if isinstance(keys, np.ndarray) else to_python(keys)
