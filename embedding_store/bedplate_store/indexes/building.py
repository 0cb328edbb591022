"""Building an index: train, add rows, merge parts, tune.

Which kind, and why: docs/adr/0006-faiss-index-choice.md.

The steps stand on their own files, so that they may run in different processes: one trains, many add a range
of rows each, one merges and tunes. :func:`build_index` is all of them in one process.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bedplate.wire.registry import Metric
from bedplate.wire.store import IndexSpecification
from bedplate_store.indexes.centroids import CentroidSearch, adder, train_lists
from bedplate_store.indexes.documents import BuiltIndex, BuiltKind, IndexDocument
from bedplate_store.indexes.faiss_views import THREADS, faiss, faiss_metric, threads, write_index
from bedplate_store.indexes.graphs import build_graph
from bedplate_store.indexes.sharded import open_files, with_shards
from bedplate_store.indexes.tuning import HeldBack, held_back_rows, hold_back, tune
from bedplate_store.mapping import sha256_file
from bedplate_store.segment_parts import cut, rows_of
from bedplate_store.segments import Segment

EXACT_BELOW_ROWS = 100_000
"""A scan of fewer takes milliseconds, and is right."""
APPROXIMATE_FROM_ROWS = 1_000
"""Fewer cannot train a quantiser."""
HNSW_BELOW_ROWS = 2_000_000
"""Above, the graph takes hours to build and most of the memory."""
_HNSW_NEIGHBOURS = 32
_HNSW_EF_CONSTRUCTION = 100
_TRAINING_ROWS = 1 << 16
_TRAINING_ROWS_PER_LIST = 64
_CHUNK_ROWS = 1 << 16


@dataclass(frozen=True, slots=True)
class Recipe:
    """What to build: FAISS's description of it, the codes it holds (empty: none), its lists (0: none)."""

    kind: BuiltKind
    description: str
    codes: str
    lists: int = 0

    @property
    def mergeable(self) -> bool:
        """Whether parts can be built apart; a graph grows row by row."""
        return self.kind == "ivf"

    def parameters(self) -> dict[str, Any]:
        document: dict[str, Any] = {"description": self.description, "codes": self.codes}
        return {**document, "lists": self.lists} if self.lists else document


def first_kind(specification: IndexSpecification, rows: int) -> BuiltKind:
    """The kind to build first; for ``auto`` over many rows the lists, see :func:`graph_is_worth_trying`."""
    if rows < APPROXIMATE_FROM_ROWS or (specification.kind == "auto" and rows < EXACT_BELOW_ROWS):
        return "flat"
    return "ivf" if specification.kind == "auto" else specification.kind


def graph_is_worth_trying(specification: IndexSpecification, rows: int, lists: IndexDocument) -> bool:
    """Whether ``auto`` builds a graph too: the lists miss the target or need over a sixteenth of them."""
    if specification.kind != "auto" or lists.kind != "ivf" or rows >= HNSW_BELOW_ROWS:
        return False
    reached = (lists.recall_at_10 or 0) >= specification.recall_target
    return not (reached and lists.parameters["ef"] * 16 <= lists.parameters["lists"])


def recipe(kind: BuiltKind, rows: int, dtype: str) -> Recipe:
    """How a kind other than ``flat`` is built over so many rows of vectors of ``dtype``."""
    # No wider than what they are rescored with.
    codes = "SQ4" if dtype == "int4" else "SQ8"
    if kind == "ivf":
        lists = 1 << max(
            4, min(round(np.log2(2 * np.sqrt(rows))), int(np.log2(rows / _TRAINING_ROWS_PER_LIST)))
        )
        return Recipe("ivf", f"IVF{lists},{codes}", codes, lists)
    # Walking over the segment's float16 vectors is as fast as over codes of a byte a number, and needs none.
    codes = "" if dtype == "float16" else codes
    return Recipe("hnsw", f"HNSW{_HNSW_NEIGHBOURS},{codes or 'SQfp16'}", codes)


def train(
    segment: Segment,
    how: Recipe,
    metric: Metric,
    path: Path,
    *,
    seed: int = 0,
    centroids: CentroidSearch | None = None,
) -> None:
    """Write the trained, empty index. The held-back rows train nothing.

    ``centroids``: where rows are compared with those of inverted lists; None: in the index itself.
    """
    rows, dim = segment.info.rows, segment.info.dim
    index = faiss.index_factory(dim, how.description, faiss_metric(metric))
    if how.kind == "hnsw":
        index.hnsw.efConstruction = _HNSW_EF_CONSTRUCTION
    count = max(_TRAINING_ROWS, how.lists * _TRAINING_ROWS_PER_LIST)
    held_back = held_back_rows(rows, seed)
    sample = np.random.default_rng(seed).permutation(rows)[len(held_back) :][:count]
    vectors = segment.info.storage.decode(segment.scan[np.sort(sample)], "float32")
    with threads(THREADS):
        if how.mergeable and centroids is not None:
            train_lists(index, vectors, centroids)
        else:
            index.train(vectors)
    write_index(index, path)


def add_rows(
    segment: Segment,
    trained: Path,
    path: Path,
    start: int,
    stop: int,
    *,
    progress: Callable[[int], None] = lambda _rows: None,
    centroids: CentroidSearch | None = None,
) -> None:
    """Write the trained inverted lists with the rows ``[start, stop)`` in them.

    ``progress`` is told how many rows are added, and may raise to stop. ``centroids`` as in :func:`train`.
    """
    index = faiss.read_index(str(trained))
    add = index.add_with_ids if centroids is None else adder(index, centroids)
    with threads(THREADS):
        for first, vectors in _chunks(segment, start, stop):
            add(vectors, np.arange(first, first + len(vectors)))
            progress(first + len(vectors) - start)
    write_index(index, path)


def merge_parts(parts: Sequence[Path], path: Path, first_row: int = 0) -> None:
    """Write the index that holds the rows of all ``parts``, in order, counted from ``first_row``.

    They share one trained index. The parts are mapped, and each list takes its final size at once: what is in
    memory is the result.
    """
    index = faiss.read_index(str(parts[0]))
    index.reset()
    opened = [faiss.read_index(str(part), faiss.IO_FLAG_MMAP_IFC) for part in parts]
    # Not FAISS's merge_from: it empties the parts, which are mapped read-only, and lists grow by doubling.
    for number in range(index.nlist):
        sizes = [part.invlists.list_size(number) for part in opened]
        index.invlists.resize(number, sum(sizes))
        for part, size, end in zip(opened, sizes, accumulate(sizes), strict=True):
            if size:
                ids = faiss.rev_swig_ptr(part.invlists.get_ids(number), size) - first_row
                codes = part.invlists.get_codes(number)
                index.invlists.update_entries(number, end - size, size, faiss.swig_ptr(ids), codes)
    index.ntotal = sum(part.ntotal for part in opened)
    write_index(index, path)


def finish(
    segment: Segment,
    how: Recipe,
    metric: Metric,
    paths: Sequence[Path],
    *,
    target: float,
    held_back: HeldBack,
    before: Sequence[Path] = (),
) -> BuiltIndex:
    """Tune the index in ``paths``, of which each holds an equal range of the rows, and describe it.

    ``before``: what graphs were before the rows that were held back came, see :func:`build_graph`.
    """
    document = IndexDocument("", 0, how.kind, how.parameters(), None)
    index = open_files(before or paths, document, segment, metric)
    parameters, at_10, at_100 = tune(index, how.kind, how.parameters(), target, held_back)
    files = [(sha256_file(path), path.stat().st_size) for path in paths]
    document = IndexDocument(*files[0], how.kind, parameters, at_10, at_100)
    return BuiltIndex(document if len(paths) == 1 else with_shards(document, segment, files), tuple(paths))


def build_index(
    segment: Segment,
    specification: IndexSpecification,
    metric: Metric,
    *,
    directory: Path,
    seed: int = 0,
    parts: Sequence[Path] = (),
    centroids: CentroidSearch | None = None,
) -> BuiltIndex:
    """Build the index ``specification`` asks for over the segment's rows, as new files in ``directory``:
    one for each shard.

    ``auto`` scans below 100,000 rows; above, it takes the inverted lists if they reach the recall target with
    a sixteenth of the lists, else the graph if that is better. Any kind below 1,000 rows is a scan. The same
    segment, specification and seed give the same bytes. The effort is tuned to the recall target; if the
    target cannot be reached, the best effort and the recall it measured are recorded. ``parts`` of inverted
    lists, which together hold all rows in order, equally many for each shard, are merged instead of built
    again. ``centroids`` as in :func:`train`.
    """
    directory.mkdir(parents=True, exist_ok=True)
    rows, dtype = segment.info.rows, segment.info.dtype
    spans = cut(rows, specification.shards)
    kind = first_kind(specification, rows)
    if kind == "flat":
        flat = IndexDocument.flat(rows)
        return BuiltIndex(flat if len(spans) == 1 else with_shards(flat, segment, [("", 0)] * len(spans)), ())
    held_back = hold_back(segment, metric, seed)

    def built(kind: BuiltKind) -> BuiltIndex:
        how = recipe(kind, rows, dtype)
        trained = directory / f"trained-{uuid.uuid4().hex}.faiss"
        paths = [directory / f"index-{uuid.uuid4().hex}.faiss" for _ in spans]
        before = [] if how.mergeable else [path.with_suffix(".before") for path in paths]
        try:
            if parts and how.mergeable:
                each = len(parts) // len(spans)
                for number, (path, span) in enumerate(zip(paths, spans, strict=True)):
                    merge_parts(parts[number * each : (number + 1) * each], path, span.start)
            else:
                train(segment, how, metric, trained, seed=seed, centroids=centroids)
                for number, (path, span) in enumerate(zip(paths, spans, strict=True)):
                    shard = segment if len(spans) == 1 else rows_of(segment, span.start, span.stop)
                    if how.mergeable:
                        add_rows(shard, trained, path, 0, len(span), centroids=centroids)
                    else:
                        own, vectors = held_back.rows_of(span), bool(how.codes)
                        build_graph(shard, trained, path, before[number], own, holds_vectors=vectors)
            target = specification.recall_target
            return finish(segment, how, metric, paths, target=target, held_back=held_back, before=before)
        except BaseException:
            for path in paths:
                path.unlink(missing_ok=True)
            raise
        finally:
            for path in (trained, *before):
                path.unlink(missing_ok=True)

    first = built(kind)
    if not graph_is_worth_trying(specification, rows, first.document):
        return first
    try:
        graph = built("hnsw")
    except BaseException:
        first.remove()
        raise
    return _better(graph, first, specification.recall_target)


def _better(graph: BuiltIndex, lists: BuiltIndex, target: float) -> BuiltIndex:
    """The graph, if it is no worse where it counts; the other one's files go."""
    at_least = min(target, lists.document.recall_at_10 or 0)
    kept, dropped = (graph, lists) if (graph.document.recall_at_10 or 0) >= at_least else (lists, graph)
    dropped.remove()
    return kept


def _chunks(segment: Segment, start: int, stop: int) -> Iterator[tuple[int, NDArray[np.float32]]]:
    for first in range(start, stop, _CHUNK_ROWS):
        last = min(first + _CHUNK_ROWS, stop)
        yield first, segment.info.storage.decode(segment.scan[first:last], "float32")
