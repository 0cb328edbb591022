"""Virtual shards: which rows of a segment, which keys and which writes belong to which.

A shard is a range of the segment's rows, and so of its sorted keys: cut in equal parts when the snapshot is
made, it stays that until the next one, and a key that is written meanwhile falls between two of its
neighbours. Shapes: n keys, V shards.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from bedplate_store.indexes import ShardDocument
from bedplate_store.key_runs import slice_keys
from bedplate_store.keys import Keys, StringKeys, as_arrow, build_column
from bedplate_store.segments import Segment


@dataclass(frozen=True, slots=True)
class ShardRanges:
    """Where the shards of a snapshot begin; ``first_keys`` [V - 1] of all shards but the first, ascending."""

    first_keys: tuple[int | str, ...]

    @classmethod
    def of(cls, shards: Sequence[ShardDocument]) -> ShardRanges:
        return cls(tuple(shard.first_key for shard in shards if shard.first_key is not None))

    def __len__(self) -> int:
        return len(self.first_keys) + 1

    def shard_of(self, keys: Keys) -> NDArray[np.int64]:
        """The shard [n] that each key belongs to, whether it exists or not."""
        if not isinstance(keys, StringKeys):
            return np.searchsorted(np.array(self.first_keys, np.int64), keys, side="right").astype(np.int64)
        texts, shards = as_arrow(keys), np.zeros(len(keys), np.int64)
        for first in self.first_keys:
            shards += pc.greater_equal(texts, str(first).encode()).to_numpy(zero_copy_only=False)
        return shards

    def part_of(self, write: Segment, shard: int) -> Segment | None:
        """What of a write belongs to ``shard``; None: nothing."""
        rows, gone = self._span(write.keys, shard), self._span(write.tombstones, shard)
        attributes = write.attributes
        if len(rows) == 0 and len(gone) == 0 and attributes is None:
            return None  # else at least the names of the attributes, which a filter may use
        if len(rows) == len(write.keys) and len(gone) == len(write.tombstones):
            return write
        return Segment(
            info=replace(write.info, rows=len(rows), tombstones=len(gone)),
            column=build_column(slice_keys(write.keys, rows.start, rows.stop)),
            vectors=write.vectors[rows.start : rows.stop],
            tombstones=slice_keys(write.tombstones, gone.start, gone.stop),
            vectors_path=None,
            attributes=None if attributes is None else attributes.slice(rows.start, len(rows)),
        )

    def _span(self, keys: Keys, shard: int) -> range:
        """The places of a shard's keys among ``keys``, which are sorted."""
        start, stop = np.searchsorted(self.shard_of(keys), (shard, shard + 1))
        return range(int(start), int(stop))
