"""Parts of a segment: ranges of its rows that are served, searched and indexed by themselves."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from bedplate.stored_vectors import StoredRows
from bedplate_store.key_runs import slice_keys
from bedplate_store.keys import Column, Keys, StringColumn, StringKeys, build_column
from bedplate_store.segments import Segment


@dataclass(frozen=True, kw_only=True)
class SegmentPart(Segment):
    """Rows ``[start, start + info.rows)`` of ``whole``, mapped with it; what is not touched costs nothing."""

    whole: Segment
    start: int

    @property
    def scan(self) -> StoredRows:
        scanned: StoredRows = self.whole.scan[self.start : self.start + self.info.rows]
        return scanned


class _StringPart(StringColumn):
    """A range of a column of strings, found through the hashes of all; rows count from ``start``."""

    def __init__(self, whole: StringColumn, keys: StringKeys, start: int) -> None:
        super().__init__(keys, whole.hashes, whole.hash_rows)
        self._whole = whole
        self._start = start

    def find(self, keys: Keys) -> NDArray[np.int64]:
        """Row of each key [n] int64, -1 where this part has none."""
        rows = self._whole.find(keys) - self._start
        rows[(rows < 0) | (rows >= len(self))] = -1
        return rows


def rows_of(segment: Segment, start: int, stop: int) -> Segment:
    """The segment's rows ``[start, stop)`` as a segment; nothing is read."""
    keys = slice_keys(segment.keys, start, stop)
    column: Column = (
        _StringPart(segment.column, keys, start)
        if isinstance(keys, StringKeys) and isinstance(segment.column, StringColumn)
        else build_column(keys)
    )
    return SegmentPart(
        info=replace(segment.info, rows=stop - start),
        column=column,
        vectors=segment.vectors[start:stop],
        tombstones=segment.tombstones,
        vectors_path=None,
        attributes=None if segment.attributes is None else segment.attributes.slice(start, stop - start),
        whole=segment,
        start=start,
    )


def cut(rows: int, shards: int) -> list[range]:
    """``rows`` in ``shards`` equal ranges; fewer where there are fewer rows than shards."""
    shards = max(1, min(shards, rows))
    return [range(rows * number // shards, rows * (number + 1) // shards) for number in range(shards)]
