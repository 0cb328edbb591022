"""An index in several files, each over a range of the segment's rows; all share one trained quantiser.

They answer as one index: each list is cut between them, so probing the same lists finds the same rows. Where
more candidates are rescored than asked for, each shard brings its own, so that together they find no less.

Legend: Q queries, K results, D dimension.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bedplate.wire.registry import Metric
from bedplate_store.indexes.documents import BuiltKind, IndexDocument, ShardDocument
from bedplate_store.indexes.efforts import Effort
from bedplate_store.indexes.port import VectorIndex
from bedplate_store.indexes.searching import FaissIndex, FlatIndex, open_faiss
from bedplate_store.indexes.selection import RowSelection
from bedplate_store.key_runs import key_at
from bedplate_store.scoring import Rows, Scores, best
from bedplate_store.segment_parts import cut, rows_of
from bedplate_store.segments import Segment


class ShardedIndex:
    """Shards in one process, as a :class:`VectorIndex`; each with the rows ``spans`` of the segment."""

    def __init__(self, shards: Sequence[FaissIndex], spans: Sequence[range]) -> None:
        self.kind: BuiltKind = shards[0].kind
        self.parameters: Mapping[str, Any] = shards[0].parameters
        self.rows = spans[-1].stop
        self._shards = list(zip(shards, spans, strict=True))

    def search(
        self,
        queries_QD: NDArray[np.float32],
        k: int,
        *,
        ef: int | None = None,
        recall: float | None = None,
        among: RowSelection | None = None,
    ) -> tuple[Scores, Rows]:
        """As :meth:`VectorIndex.search`."""
        parts = [None] * len(self._shards) if among is None else self._cut(among)
        return _merged(
            [
                (*shard.search(queries_QD, k, ef=ef, recall=recall, among=part), span)
                for (shard, span), part in zip(self._shards, parts, strict=True)
            ],
            k,
        )

    def search_with(
        self, queries_QD: NDArray[np.float32], k: int, effort: Effort, among: RowSelection | None = None
    ) -> tuple[Scores, Rows]:
        """Search at exactly this effort: what tuning measures."""
        parts = [None] * len(self._shards) if among is None else self._cut(among)
        return _merged(
            [
                (*shard.search_with(queries_QD, k, effort, part), span)
                for (shard, span), part in zip(self._shards, parts, strict=True)
            ],
            k,
        )

    def _cut(self, among: RowSelection) -> list[RowSelection]:
        parts: list[RowSelection] | None = among.prepared.get(ShardedIndex)
        if parts is None:
            parts = [among.part(span.start, span.stop) for _, span in self._shards]
            among.prepared[ShardedIndex] = parts
        return parts


def open_index(
    paths: Sequence[Path], document: IndexDocument, segment: Segment, metric: Metric
) -> VectorIndex:
    """Map an index into memory; no ``paths``: its kind has no file."""
    if not paths or segment.info.rows == 0:
        return FlatIndex(segment, metric)
    return open_files(paths, document, segment, metric)


def open_files(
    paths: Sequence[Path], document: IndexDocument, segment: Segment, metric: Metric
) -> FaissIndex | ShardedIndex:
    """Map the files of an index into memory; several hold equal ranges of the segment's rows."""
    if len(paths) == 1:
        return open_faiss(paths[0], document, segment, metric)
    spans = cut(segment.info.rows, len(paths))
    parts = [rows_of(segment, span.start, span.stop) for span in spans]
    shards = [open_faiss(path, document, part, metric) for path, part in zip(paths, parts, strict=True)]
    return ShardedIndex(shards, spans)


def with_shards(document: IndexDocument, segment: Segment, files: Sequence[tuple[str, int]]) -> IndexDocument:
    """``document`` with a shard for each of ``files``: (digest, bytes); ("", 0) where its kind has none."""
    spans = cut(segment.info.rows, len(files))
    shards = [
        ShardDocument(_first_key(segment, span.start) if number else None, span.start, span.stop, *file)
        for number, (span, file) in enumerate(zip(spans, files, strict=True))
    ]
    return document.of_shards(shards)


def _first_key(segment: Segment, row: int) -> int | str:
    key = key_at(segment.keys, row)
    return key.decode("utf-8", "surrogatepass") if isinstance(key, bytes) else key


def _merged(found: Sequence[tuple[Scores, Rows, range]], k: int) -> tuple[Scores, Rows]:
    scores = np.concatenate([scores for scores, _, _ in found], axis=1)
    rows = np.concatenate([np.where(rows < 0, -1, rows + span.start) for _, rows, span in found], axis=1)
    return best(scores, rows, k)
