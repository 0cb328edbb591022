"""What compressing a space cost: its rows beside a sample of them that was kept in float32.

The samples are segments of their own, written by the embed partitions and collected after the job. Rows that
a write replaced meanwhile tell nothing and are left out. Legend: S sampled rows, Q queries, D dimension.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bedplate.stored_vectors import Storage, StoredRows
from bedplate.wire.registry import Metric
from bedplate.wire.store import Compression
from bedplate_store.indexes import flat_rows
from bedplate_store.keys import RawKeys
from bedplate_store.merging import merge_segments
from bedplate_store.objects import ObjectStore
from bedplate_store.scoring import score_candidates
from bedplate_store.segments import SegmentInfo, open_segment, write_segment

SAMPLED_ROWS = 20_000
"""Of a space, or some more: every partition keeps a few."""
_SAMPLED_ROWS_MIN = 16
_QUERIES = 200
_NEIGHBOURS = 10


def sample_rows(partitions: int) -> int:
    """How many rows each of so many partitions keeps."""
    return max(_SAMPLED_ROWS_MIN, -(-SAMPLED_ROWS // partitions))


def keep_sample(
    objects: ObjectStore, keys: RawKeys, vectors: NDArray[np.float32], info: SegmentInfo, rows: int
) -> str | None:
    """Keep at most ``rows`` of the vectors of a segment as they are; its digest, None: nothing to compare."""
    if not info.storage.compressed or len(vectors) == 0:
        return None
    chosen = np.sort(np.random.default_rng(0).permutation(len(vectors))[:rows])
    sampled = [keys[row] for row in chosen.tolist()]
    kept = write_segment(
        objects, keys=sampled, vectors=vectors[chosen], dtype="float32", key_type=info.key_type
    )
    return kept.digest


def measure(
    objects: ObjectStore, cache_dir: Path, segment: SegmentInfo, samples: Sequence[str], metric: Metric
) -> Compression | None:
    """Compare a segment with the samples of its partitions; None: there are none, or all were replaced.

    Errors are Euclidean, relative to the vector. The recall is that of an exact search among the compressed
    sampled rows, for sampled vectors as they were: of what an index misses ``recall_at_10`` of the snapshot
    tells.
    """
    if not samples:
        return None
    sample = open_segment(objects, merge_segments(objects, cache_dir, samples).digest, cache_dir)
    base = open_segment(objects, segment.digest, cache_dir)
    rows = base.find(sample.keys)
    exact_SD = np.asarray(sample.scan, np.float32)
    stored = base.vectors.take(np.maximum(rows, 0), axis=0) if segment.rows else segment.storage.empty(0)
    same = rows >= 0
    same[same] = (stored[same] == segment.storage.encode(exact_SD[same])).all(axis=1)
    exact_SD, stored = exact_SD[same], stored[same]
    if len(exact_SD) == 0:
        return None
    lengths = np.linalg.norm(exact_SD, axis=1)
    moved = np.linalg.norm(segment.storage.decode(stored, "float32") - exact_SD, axis=1)
    errors = np.divide(moved, lengths, out=np.zeros_like(moved), where=lengths > 0)
    return Compression(
        rows=len(exact_SD),
        relative_error_mean=float(errors.mean()),
        relative_error_p99=float(np.quantile(errors, 0.99)),
        recall_at_10=_recall(exact_SD, segment.storage, stored, metric),
    )


def _recall(
    exact_SD: NDArray[np.float32], storage: Storage, stored: StoredRows, metric: Metric
) -> float | None:
    """Share of the ten nearest vectors that a search of their compressed rows finds."""
    if len(exact_SD) <= _NEIGHBOURS:
        return None
    own = np.random.default_rng(1).permutation(len(exact_SD))[:_QUERIES]
    queries_QD = exact_SD[own]
    uncompressed = replace(storage, dtype="float32")
    scores, rows = flat_rows(exact_SD, metric, uncompressed).search(queries_QD, _NEIGHBOURS + 1)
    scores[rows == own[:, None]] = -np.inf
    tenth = -np.sort(-scores, axis=1)[:, _NEIGHBOURS - 1]
    _, found = flat_rows(stored, metric, storage).search(queries_QD, _NEIGHBOURS + 1)
    itself = found == own[:, None]
    found[itself] = -1
    found[~itself.any(axis=1), -1] = -1  # then the eleventh is none of the ten
    true_scores = score_candidates(queries_QD, exact_SD, uncompressed, found, metric)
    near = true_scores >= (tenth - 1e-5 * np.maximum(1, np.abs(tenth)))[:, None]
    return float(near.sum(axis=1).clip(max=_NEIGHBOURS).mean() / _NEIGHBOURS)
