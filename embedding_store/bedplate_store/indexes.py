"""Vector indexes: the port, and FAISS behind it. No other module imports faiss.

Which index is chosen by measured recall on the space's own vectors, not by its size alone; the reasons are
in docs/adr/0006-faiss-index-choice.md. Legend: Q queries, K results, D dimension.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal, Protocol

import faiss as typed_faiss
import numpy as np
from numpy.typing import NDArray

from bedplate.wire.registry import Metric
from bedplate.wire.store import IndexSpecification
from bedplate_store.mapping import sha256_file
from bedplate_store.scoring import Rows, Scores, best, scan, score_candidates
from bedplate_store.segments import Segment, VectorArray

# The stubs that faiss ships lack half of what it exports.
faiss: Any = typed_faiss

INDEXES_PREFIX = "indexes/"
BuiltKind = Literal["flat", "hnsw", "ivf"]

_EXACT_BELOW_ROWS = 100_000  # a scan of fewer takes milliseconds, and is right
_APPROXIMATE_FROM_ROWS = 1_000  # fewer cannot train a quantiser
_HNSW_BELOW_ROWS = 2_000_000  # above, the graph takes hours to build and most of the memory
_HNSW_NEIGHBOURS = 32
_TRAINING_ROWS_PER_LIST = 64
_CHUNK_ROWS = 1 << 16
_RECALL_QUERIES = 200
_RECALL_AT = 10
_FETCH_LIMIT = 4096
_PARALLEL_FROM_QUERIES = 16  # waking a thread takes longer than a query
_THREADS: int = faiss.omp_get_max_threads()


@dataclass(frozen=True, slots=True)
class DeadRows:
    """Rows of a base segment that newer writes replaced or deleted: ``mask`` [R], ``count`` of them."""

    mask: NDArray[np.bool_]
    count: int


class VectorIndex(Protocol):
    """Proposes rows that may be near.

    It holds no keys and no vectors of record: its ids are the base segment's row numbers, and what it
    proposes is scored against the segment, so an index may be lossy. That is why one method is enough.
    """

    kind: BuiltKind
    parameters: Mapping[str, Any]
    rows: int

    def search(
        self, vectors_QD: NDArray[np.float32], k: int, ef: int | None = None
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Scores [Q, K], higher is nearer, and rows [Q, K]; -inf and -1 where it found fewer. ``ef`` None: as
        tuned when it was built."""


@dataclass(frozen=True, slots=True)
class BuiltIndex:
    """An index file on this machine, and what is to be recorded about it."""

    path: Path
    digest: str
    bytes: int
    kind: BuiltKind
    parameters: dict[str, Any]
    recall_at_10: float | None

    def to_document(self) -> IndexDocument:
        return IndexDocument(self.digest, self.bytes, self.kind, self.parameters, self.recall_at_10)


@dataclass(frozen=True, slots=True)
class IndexDocument:
    """What a snapshot records of its index; the file lies under :func:`index_key`."""

    digest: str
    bytes: int
    kind: BuiltKind
    parameters: dict[str, Any]
    recall_at_10: float | None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> IndexDocument:
        return cls(**{field.name: document[field.name] for field in fields(cls)})


def index_key(digest: str) -> str:
    """Key of an index file in the object store."""
    return f"{INDEXES_PREFIX}{digest}/index.faiss"


class FaissIndex:
    """A FAISS index mapped from its file; nearly all of it stays in the page cache."""

    def __init__(self, index: Any, kind: BuiltKind, parameters: Mapping[str, Any], metric: Metric) -> None:
        self._index = index
        self._sign = np.float32(1 if metric == "inner_product" else -1)
        self.kind: BuiltKind = kind
        self.parameters = parameters
        self.rows = int(index.ntotal)

    def search(
        self, vectors_QD: NDArray[np.float32], k: int, ef: int | None = None
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        effort = int(ef or self.parameters.get("ef", 0))
        queries = np.ascontiguousarray(vectors_QD, np.float32)
        with _threads(_THREADS if len(queries) >= _PARALLEL_FROM_QUERIES else 1):
            distances, rows = self._index.search(queries, k, params=self._effort(effort, k))
        return np.where(rows < 0, -np.inf, self._sign * distances).astype(np.float32, copy=False), rows

    def _effort(self, effort: int, k: int) -> Any:
        if self.kind == "hnsw":
            return faiss.SearchParametersHNSW(efSearch=max(effort, k))
        if self.kind == "ivf":
            lists = min(max(effort, 1), int(self.parameters["lists"]))
            return faiss.IndexRefineSearchParameters(
                k_factor=float(self.parameters["refine_factor"]),
                base_index_params=faiss.SearchParametersIVF(nprobe=lists),
            )
        return None


def open_index(path: Path, document: IndexDocument, metric: Metric) -> VectorIndex:
    """Map an index file into memory."""
    return FaissIndex(
        faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC), document.kind, document.parameters, metric
    )


def build_index(
    segment: Segment, specification: IndexSpecification, metric: Metric, *, directory: Path, seed: int = 0
) -> BuiltIndex:
    """Build the index ``specification`` asks for over the segment's rows, as a new file in ``directory``.

    ``auto`` scans below 100,000 rows; above, it takes the inverted lists if they reach the recall target with
    a sixteenth of the lists, else the graph if that is better. Any kind below 1,000 rows is a scan. The same
    segment, specification and seed give the same bytes. The effort is tuned to the recall target; if the
    target cannot be reached, the best effort and the recall it measured are recorded.
    """
    directory.mkdir(parents=True, exist_ok=True)
    rows = segment.info.rows
    kind = specification.kind
    if rows < _APPROXIMATE_FROM_ROWS or (kind == "auto" and rows < _EXACT_BELOW_ROWS):
        kind = "flat"
    if kind != "auto":
        return _build(segment, kind, metric, specification.recall_target, directory, seed)
    lists = _build(segment, "ivf", metric, specification.recall_target, directory, seed)
    reached = (lists.recall_at_10 or 0) >= specification.recall_target
    if (reached and lists.parameters["ef"] * 16 <= lists.parameters["lists"]) or rows >= _HNSW_BELOW_ROWS:
        return lists
    graph = _build(segment, "hnsw", metric, specification.recall_target, directory, seed)
    if (graph.recall_at_10 or 0) >= min(specification.recall_target, lists.recall_at_10 or 0):
        lists.path.unlink()
        return graph
    graph.path.unlink()
    return lists


def search_rows(
    index: VectorIndex,
    vectors: VectorArray,
    queries_QD: NDArray[np.float32],
    metric: Metric,
    k: int,
    *,
    ef: int | None = None,
    dead: DeadRows | None = None,
) -> tuple[Scores, Rows]:
    """The best ``k`` living rows of each query, scored exactly: scores, rows [Q, K], padded with -inf, -1.

    ``dead`` rows never appear. The index is asked for more until enough of them live; where that does not
    help (a neighbourhood deleted as a whole), the rows are scanned: a query gets fewer than ``k`` rows only
    if fewer live.
    """
    if index.rows == 0:
        return scan(queries_QD, vectors, metric, k)
    dead_R = None if dead is None or dead.count == 0 else dead.mask
    dead_count = 0 if dead is None else dead.count
    need = min(k, index.rows - dead_count)
    fetch = min(index.rows, (k if index.kind == "flat" else 2 * k) + min(dead_count, k))
    short = np.zeros(len(queries_QD), np.bool_)
    while True:
        scores, rows = index.search(queries_QD, fetch, ef)
        if dead_R is not None:
            rows = np.where((rows >= 0) & dead_R[rows], -1, rows)
        short = (rows >= 0).sum(axis=1) < need
        if not short.any() or fetch >= min(index.rows, _FETCH_LIMIT):
            break
        fetch = min(4 * fetch, index.rows, _FETCH_LIMIT)
    if index.kind == "flat":
        scores = np.where(rows < 0, np.float32(-np.inf), scores)
    else:
        scores = score_candidates(queries_QD, vectors, rows, metric)
    if fetch < k:
        padding = ((0, 0), (0, k - fetch))
        scores = np.pad(scores, padding, constant_values=-np.inf)
        rows = np.pad(rows, padding, constant_values=-1)
    scores, rows = best(scores, rows, k)
    if short.any():
        scores[short], rows[short] = scan(queries_QD[short], vectors, metric, k, dead_R)
    return scores, rows


def measure_recall(
    index: VectorIndex, segment: Segment, metric: Metric, *, ef: int | None, sample: RecallSample
) -> float:
    """Share of the exact ten nearest rows that the index finds, over the sampled queries.

    A found row counts if it scores no less than the exact tenth: of rows with equal vectors any will do.
    """
    found, rows = search_rows(index, segment.vectors, sample.queries, metric, sample.at + 1, ef=ef)
    found[rows == sample.own[:, None]] = -np.inf
    hits = (found >= sample.threshold[:, None]).sum(axis=1)
    return float(np.minimum(hits, sample.at).mean() / sample.at)


@dataclass(frozen=True, slots=True)
class RecallSample:
    """``queries`` [Q, D] sampled from the rows, their ``own`` rows [Q], which do not count, and the score [Q]
    of the exact neighbour number ``at``."""

    queries: NDArray[np.float32]
    own: NDArray[np.int64]
    threshold: NDArray[np.float32]
    at: int


def sample_recall(segment: Segment, metric: Metric, seed: int) -> RecallSample:
    """Sample queries and find the score of each one's exact tenth neighbour."""
    rows = segment.info.rows
    own = np.sort(np.random.default_rng(seed).permutation(rows)[:_RECALL_QUERIES])
    queries = segment.vectors[own].astype(np.float32)
    at = min(_RECALL_AT, rows - 1)
    scores, found = scan(queries, segment.scan, metric, at + 1)
    # By its own row, not by its score: under the inner product a vector need not be its own nearest.
    scores[found == own[:, None]] = -np.inf
    tenth = -np.sort(-scores, axis=1)[:, at - 1]
    tolerance = 1e-5 * np.maximum(1, np.abs(tenth))
    return RecallSample(queries, own, (tenth - tolerance).astype(np.float32), at)


def _build(
    segment: Segment, kind: BuiltKind, metric: Metric, target: float, directory: Path, seed: int
) -> BuiltIndex:
    index, parameters = _train(segment, kind, metric, seed)
    path = directory / f"index-{uuid.uuid4().hex}.faiss"
    # A graph built by several threads differs from run to run.
    with _threads(1 if kind == "hnsw" else _THREADS):
        for vectors in _chunks(segment):
            index.add(vectors)
    faiss.write_index(index, str(path))
    # Opened again as readers will: the recall is that of the file, not of the object in memory.
    del index
    recall = None
    if segment.info.rows > 1:
        parameters, recall = _tune(path, segment, kind, metric, parameters, target, seed)
    return BuiltIndex(path, sha256_file(path), path.stat().st_size, kind, parameters, recall)


def _train(segment: Segment, kind: BuiltKind, metric: Metric, seed: int) -> tuple[Any, dict[str, Any]]:
    dim, rows = segment.info.dim, segment.info.rows
    faiss_metric = faiss.METRIC_INNER_PRODUCT if metric == "inner_product" else faiss.METRIC_L2
    if kind == "flat":
        description = "SQfp16" if segment.info.dtype == "float16" else "Flat"
        index = faiss.index_factory(dim, description, faiss_metric)
        index.is_trained = True  # neither has anything to learn, and there may be no rows at all
        return index, {"description": description}
    parameters: dict[str, Any]
    if kind == "hnsw":
        parameters = {"description": f"HNSW{_HNSW_NEIGHBOURS},SQ8"}
        training_rows = _CHUNK_ROWS
    else:
        lists = 1 << max(4, round(np.log2(2 * np.sqrt(rows))))
        quantisers = dim // 2 if dim % 2 == 0 else dim
        parameters = {"description": f"IVF{lists},PQ{quantisers}x4fs,Refine(SQfp16)", "lists": lists}
        training_rows = max(_CHUNK_ROWS, lists * _TRAINING_ROWS_PER_LIST)
    index = faiss.index_factory(dim, parameters["description"], faiss_metric)
    sample = np.sort(np.random.default_rng(seed).permutation(rows)[:training_rows])
    index.train(np.ascontiguousarray(segment.scan[sample], np.float32))
    return index, parameters


def _tune(
    path: Path,
    segment: Segment,
    kind: BuiltKind,
    metric: Metric,
    parameters: dict[str, Any],
    target: float,
    seed: int,
) -> tuple[dict[str, Any], float]:
    """The least effort that reaches the target, or the best there is, and the recall it measured."""
    sample = sample_recall(segment, metric, seed)
    best_parameters, best_recall = parameters, -1.0
    for tried in _efforts(kind, parameters):
        index = open_index(path, IndexDocument("", 0, kind, tried, None), metric)
        recall = measure_recall(index, segment, metric, ef=None, sample=sample)
        if recall > best_recall:
            best_parameters, best_recall = tried, recall
        if recall >= target:
            break
    return best_parameters, best_recall


def _efforts(kind: BuiltKind, parameters: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Settings from the cheapest to the dearest."""
    if kind == "flat":
        yield parameters
    elif kind == "hnsw":
        for candidates in (32, 64, 128, 256, 512, 1024):
            yield {**parameters, "ef": candidates}
    else:
        for factor in (8, 32):
            for exponent in range(int(parameters["lists"]).bit_length()):
                yield {**parameters, "ef": 1 << exponent, "refine_factor": factor}


def _chunks(segment: Segment) -> Iterator[NDArray[np.float32]]:
    for start in range(0, segment.info.rows, _CHUNK_ROWS):
        yield np.ascontiguousarray(segment.scan[start : start + _CHUNK_ROWS], np.float32)


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """Let FAISS use ``count`` threads for calls of this thread; OpenMP keeps the number for each caller."""
    faiss.omp_set_num_threads(count)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(_THREADS)
