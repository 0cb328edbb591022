"""Building an index: ``build_index`` against bare FAISS, train and add of the same index string."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bedplate.wire.store import IndexKind, IndexSpecification
from bedplate_store.indexes import BuiltIndex, build_index
from bedplate_store.objects import LocalObjectStore
from bedplate_store.segments import Segment, open_segment, write_segment
from benchmarks import bare_faiss
from benchmarks.figures import Figure, Sample, interleave
from benchmarks.search import RECALL_TARGET, SHARES
from benchmarks.vectors import clustered, gapped_keys
from benchmarks.workbench import SEARCH_DIM, Workbench

NAME = "index"
_ROUNDS: dict[IndexKind, int] = {"ivf": 3, "hnsw": 1}  # a graph takes a minute, and varies little
_TRAINING_ROWS = 65_536
_TRAINING_ROWS_PER_LIST = 64


def run(bench: Workbench) -> list[Figure]:
    """Rows indexed a second. The platform also reads the segment, tunes the effort, measures the recall and
    writes the file; the limit has its vectors in memory and does none of that."""
    figures = []
    for kind, share in SHARES.items():
        rows = bench.scale.rows // share
        bench.say(f"index: building {kind} over {rows:,} x {SEARCH_DIM} ...")
        vectors, _ = clustered(rows, 0, SEARCH_DIM)
        figures.append(_measure(bench.folder / "index", kind, vectors))
    return figures


def _measure(folder: Path, kind: IndexKind, vectors: NDArray[np.float32]) -> Figure:
    segment = _segment(folder, vectors)
    built: list[BuiltIndex] = []

    def product(number: int) -> Sample:
        began = time.perf_counter()
        built.append(
            build_index(
                segment,
                IndexSpecification(kind=kind, recall_target=RECALL_TARGET),
                "inner_product",
                directory=folder / "building",
            )
        )
        return Sample.of(len(vectors), time.perf_counter() - began)

    first = product(-1)
    index = built[0].document
    threads = 1 if kind == "hnsw" else bare_faiss.ALL_THREADS
    description = str(index.parameters["description"])
    training = _training(vectors, int(index.parameters.get("lists", 0)))

    def limit(_: int) -> Sample:
        began = time.perf_counter()
        bare_faiss.build(vectors, training, description, threads)
        return Sample.of(len(vectors), time.perf_counter() - began)

    rounds = _ROUNDS[kind]
    pairs = interleave(rounds, product if rounds > 1 else lambda _: first, limit, warm_up=False)
    return pairs.figure(
        NAME,
        f"{len(vectors):,} x {SEARCH_DIM} {description}",
        "rows/s",
        f"FAISS train + add, {threads} thread{'s' if threads > 1 else ''}",
        {"recall_at_10": index.recall_at_10 or 0.0, "effort": float(index.parameters.get("ef", 0))},
    )


def _segment(folder: Path, vectors: NDArray[np.float32]) -> Segment:
    objects = LocalObjectStore(folder / "objects")
    info = write_segment(
        objects, keys=gapped_keys(len(vectors)), vectors=vectors, dtype="float32", key_type="int64"
    )
    return open_segment(objects, info.digest, folder / "cache")


def _training(vectors: NDArray[np.float32], lists: int) -> NDArray[np.float32]:
    """As many rows as the platform trains on."""
    count = max(_TRAINING_ROWS, lists * _TRAINING_ROWS_PER_LIST)
    return vectors[np.sort(np.random.default_rng(0).permutation(len(vectors))[:count])]
