"""Lookups and searches of compressed spaces, in this process, against the same on float16.

``python -m benchmarks.compressed_reads`` prints more than ``make bench`` does. Rounds alternate between the
storages, so that what slows the machine for a while slows all of them; ratios are medians over the rounds.
"""

from __future__ import annotations

import argparse
import functools
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bedplate.stored_vectors import Storage
from bedplate.wire.registry import Dtype
from bedplate.wire.store import IndexSpecification
from bedplate_store.indexes import VectorIndex, build_index, open_index
from bedplate_store.objects import LocalObjectStore
from bedplate_store.scoring import scan
from bedplate_store.segments import Segment, open_segment, write_segment
from benchmarks.figures import Figure, Sample, interleave
from benchmarks.workbench import LOOKUP_DIM, Workbench

NAME = "compressed"
DTYPES: tuple[Dtype, ...] = ("float16", "int8", "int4")
ROUNDS = 15
KEYS = 100
_Calls = Mapping[str, Callable[[int], Any]]


def run(bench: Workbench) -> list[Figure]:
    """Calls a second on int8 and int4, beside the same on float16."""
    rows, dim = bench.scale.rows // 5, LOOKUP_DIM
    bench.say(f"compressed: writing {rows:,} x {dim} {', '.join(DTYPES)} ...")
    vectors, queries = _clustered(rows, dim), _clustered(64, dim, seed=1)
    segments = {dtype: _segment(bench.folder / "compressed", vectors, dtype) for dtype in DTYPES}
    chosen = np.random.default_rng(2).integers(0, rows, (64, KEYS))
    subjects = (
        (f"{KEYS} rows x {dim} as float16", "lookups/s", _lookups(segments, chosen, "float16"), 2000),
        (f"top 10 of {rows:,} x {dim}, scanned", "queries/s", _scans(segments, queries), 10),
    )
    figures = []
    for what, unit, calls, count in subjects:
        limit = functools.partial(_sample, calls["float16"], bench.scale.of(count, max(2, count // 5)))
        for dtype in DTYPES[1:]:
            product = functools.partial(_sample, calls[dtype], bench.scale.of(count, max(2, count // 5)))
            pairs = interleave(bench.scale.rounds, product, limit)
            figures.append(pairs.figure(NAME, f"{what}, {dtype}", unit, "the same from float16"))
    return figures


def _sample(call: Callable[[int], Any], count: int, _round: int) -> Sample:
    seconds = np.empty(count)
    for number in range(count):
        began = time.perf_counter()
        call(number)
        seconds[number] = time.perf_counter() - began
    return Sample(count / float(seconds.sum()), seconds)


def _scans(segments: Mapping[Dtype, Segment], queries: NDArray[np.float32]) -> _Calls:
    """Exact searches, one query at a time."""
    specification = IndexSpecification(kind="flat")
    calls = {}
    for dtype, segment in segments.items():
        with tempfile.TemporaryDirectory() as folder:
            built = build_index(segment, specification, "inner_product", directory=Path(folder))
            calls[dtype] = _one(open_index(built.paths, built.document, segment, "inner_product"), queries)
    return calls


def main() -> None:
    options = _parser().parse_args()
    vectors = _clustered(options.rows, options.dim)
    queries = _clustered(400, options.dim, seed=1)
    with tempfile.TemporaryDirectory(dir=options.directory) as folder:
        segments = {dtype: _segment(Path(folder), vectors, dtype) for dtype in DTYPES}
        print(f"{options.rows:,} x {options.dim}; us a call and share of the float16 rate")
        for dtype, segment in segments.items():
            decoded = segment.info.storage.decode(segment.vectors[:20_000], "float32")
            moved = np.linalg.norm(decoded - vectors[:20_000], axis=1)
            error = moved / np.linalg.norm(vectors[:20_000], axis=1)
            size = segment.info.storage.row_bytes / (2 * options.dim)
            p99 = np.quantile(error, 0.99)
            print(f"{dtype}: {size:.3f} of the bytes, error {error.mean():.5f}, p99 {p99:.5f}")
        rows = np.random.default_rng(2).integers(0, options.rows, (64, KEYS))
        for answer in ("float16", "float32"):
            _compare(f"{KEYS} rows as {answer}", _lookups(segments, rows, answer), 400)
        for kind in options.kinds:
            _searches(Path(folder), segments, kind, vectors, queries)


def _lookups(segments: Mapping[Dtype, Segment], rows: NDArray[np.int64], answer: Any) -> _Calls:
    def lookup(segment: Segment) -> Callable[[int], Any]:
        storage, stored = segment.info.storage, segment.vectors
        return lambda call: storage.decode(stored.take(rows[call % len(rows)], axis=0, mode="clip"), answer)

    return {dtype: lookup(segment) for dtype, segment in segments.items()}


def _searches(
    folder: Path, segments: Mapping[Dtype, Segment], kind: Any, vectors: Any, queries: NDArray[np.float32]
) -> None:
    """Speed, and the recall among the vectors as they were before compression."""
    near = scan(queries, vectors, "inner_product", 10)[1]
    calls, batches = {}, {}
    for dtype, segment in segments.items():
        specification = IndexSpecification(kind=kind, recall_target=0.95)
        built = build_index(segment, specification, "inner_product", directory=folder)
        index = open_index(built.paths, built.document, segment, "inner_product")
        found = index.search(queries, 10)[1]
        hits = np.mean([len(set(a) & set(b)) for a, b in zip(near.tolist(), found.tolist(), strict=True)])
        stored = built.document.recall_at_10
        print(f"{kind} {dtype}: recall@10 {stored:.3f} of what is stored, {hits / 10:.3f} of the vectors")
        calls[str(dtype)], batches[str(dtype)] = _one(index, queries), _all(index, queries)
    few = 5 if kind == "flat" else 50
    _compare(f"{kind}, top 10, one query", calls, few)
    _compare(f"{kind}, top 10, {len(queries)} queries", batches, 1)


def _one(index: VectorIndex, queries: NDArray[np.float32]) -> Callable[[int], Any]:
    return lambda call: index.search(queries[call % len(queries)][None, :], 10)


def _all(index: VectorIndex, queries: NDArray[np.float32]) -> Callable[[int], Any]:
    return lambda _call: index.search(queries, 10)


def _compare(name: str, calls: Mapping[Any, Callable[[int], Any]], count: int) -> None:
    times: dict[str, list[float]] = {dtype: [] for dtype in calls}
    for _ in range(ROUNDS):
        for dtype, call in calls.items():
            began = time.perf_counter()
            for number in range(count):
                call(number)
            times[dtype].append((time.perf_counter() - began) / count)
    reference = np.array(times["float16"])
    figures = (
        f"{dtype} {np.median(each) * 1e6:,.1f} ({np.median(reference / np.array(each)):.2f})"
        for dtype, each in times.items()
    )
    print(f"{name}: {', '.join(figures)}")


def _segment(folder: Path, vectors: NDArray[np.float32], dtype: Dtype) -> Segment:
    objects = LocalObjectStore(folder / "objects")
    info = write_segment(
        objects, keys=np.arange(len(vectors)), vectors=vectors, dtype=dtype, key_type="int64"
    )
    assert info.storage == Storage(dtype, vectors.shape[1])
    return open_segment(objects, info.digest, folder / "cache")


def _clustered(rows: int, dim: int, seed: int = 0) -> NDArray[np.float32]:
    """Around 1,000 centres, which are the same for every seed."""
    centres = np.random.default_rng(99).standard_normal((1000, dim), dtype=np.float32)
    random = np.random.default_rng(seed)
    noise = random.standard_normal((rows, dim), dtype=np.float32)
    made: NDArray[np.float32] = centres[random.integers(0, len(centres), rows)] + 0.5 * noise
    return made


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.compressed_reads", description=__doc__)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--dim", type=int, default=256)
    parser.add_argument("--kinds", nargs="*", default=["flat", "ivf"], choices=["flat", "ivf", "hnsw"])
    parser.add_argument("--directory", type=Path, help="for the segments; default: where temporary files go")
    return parser


if __name__ == "__main__":
    main()
