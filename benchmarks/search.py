"""Search of the top ten: against FAISS in process on the same index file at the same effort."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bedplate.errors import InternalError
from bedplate.wire.store import IndexKind, IndexSpecification
from bedplate_store.indexes import IndexDocument, index_key
from bedplate_store.readers import SpaceReader
from benchmarks.bare_faiss import ALL_THREADS, BareIndex
from benchmarks.figures import Figure, Sample, interleave, median
from benchmarks.processor_time import Meter
from benchmarks.vectors import clustered, gapped_keys
from benchmarks.workbench import REFERENCE, SEARCH_DIM, Workbench

NAME = "search"
K = 10
BATCH = 256
RECALL_TARGET = 0.95
SHARES: dict[IndexKind, int] = {"ivf": 5, "hnsw": 10}
"""The kinds measured, each over this part of the lookup's rows: 200,000 and 100,000 of 1,000,000."""
_QUERIES = 4096
_HIT_BYTES = 12  # an int64 key and a float32 score
_AGREEMENT = 0.99  # all but ties

Searched = Callable[[NDArray[np.float32]], object]


@dataclass(frozen=True)
class Subject:
    """One published space with its index, as the platform and as bare FAISS see it."""

    space: str
    title: str
    index: IndexDocument
    reader: SpaceReader
    bare: BareIndex
    queries: NDArray[np.float32]


def run(bench: Workbench) -> list[Figure]:
    """Queries a second: one at a time and in batches, in process and over HTTP."""
    figures = []
    for kind, share in SHARES.items():
        subject = _publish(bench, kind, bench.scale.rows // share)
        figures.append(_in_process(bench, subject))
        figures += [_over_http(bench, subject, 1, connections) for connections in (1, 4, 32)]
        figures.append(_over_http(bench, subject, BATCH, 1))
    return figures


def _publish(bench: Workbench, kind: IndexKind, rows: int) -> Subject:
    bench.say(f"search: publishing {rows:,} x {SEARCH_DIM} with an index of kind {kind} ...")
    vectors, queries = clustered(rows, _QUERIES, SEARCH_DIM)
    specification = IndexSpecification(kind=kind, recall_target=RECALL_TARGET)
    index = bench.publish(kind, gapped_keys(rows), vectors, specification).index
    path = None if index is None else bench.objects.local_path(index_key(index.digest))
    if index is None or path is None:
        raise InternalError(f"the space {kind} was published without an index on this machine")
    reader = bench.reader(kind)
    if reader.base is None:
        raise InternalError(f"the space {kind} has no base segment")
    subject = Subject(
        space=kind,
        title=f"top {K} of {rows:,} x {SEARCH_DIM} {kind}",
        index=index,
        reader=reader,
        bare=BareIndex(path, index.kind, index.parameters, np.asarray(reader.base.vectors, np.float32)),
        queries=queries,
    )
    _check(bench, subject)
    return subject


def _check(bench: Workbench, subject: Subject) -> None:
    """A wrong answer is not worth measuring."""
    queries = subject.queries[:BATCH]
    answer = bench.client.spaces.search(f"{REFERENCE}/{subject.space}", queries, k=K)
    keys = np.asarray(answer.keys)
    bare = gapped_keys(subject.reader.index.rows if subject.reader.index else 0)[
        subject.bare.search(queries, K, ALL_THREADS)
    ]
    agreement = np.mean([len(np.intersect1d(*pair)) / K for pair in zip(keys, bare, strict=True)])
    if agreement < _AGREEMENT:
        raise InternalError(f"{subject.title}: {agreement:.0%} of the hits are those of bare FAISS")


def _details(subject: Subject) -> dict[str, float]:
    return {
        "recall_at_10": subject.index.recall_at_10 or 0.0,
        "recall_at_100": subject.index.recall_at_100 or 0.0,
        "effort": float(subject.index.parameters.get("ef", 0)),
        "index_bytes": float(subject.index.bytes),
    }


def _in_process(bench: Workbench, subject: Subject) -> Figure:
    calls = bench.scale.of(1000, 200)
    pairs = interleave(
        bench.scale.rounds,
        lambda number: _one_by_one(lambda query: subject.reader.search(query, K), subject, calls, number),
        lambda number: _one_by_one(lambda query: subject.bare.search(query, K, 1), subject, calls, number),
    )
    return pairs.figure(
        NAME, f"{subject.title}, in process", "queries/s", "FAISS, one thread", _details(subject)
    )


def _one_by_one(call: Searched, subject: Subject, calls: int, number: int) -> Sample:
    chosen = _chosen(subject, calls, number)
    seconds = np.empty(calls)
    for place, row in enumerate(chosen):
        query = subject.queries[row : row + 1]
        began = time.perf_counter()
        call(query)
        seconds[place] = time.perf_counter() - began
    return Sample(calls / float(seconds.sum()), seconds)


def _chosen(subject: Subject, count: int, number: int) -> NDArray[np.int64]:
    return np.random.default_rng(number + 10).integers(0, len(subject.queries), count)


def _over_http(bench: Workbench, subject: Subject, batch: int, connections: int) -> Figure:
    requests = (bench.scale.of(1000, 200) if batch == 1 else bench.scale.of(40, 10)) * min(connections, 8)
    count = _QUERIES // batch
    bodies = [part.astype("<f4").tobytes() for part in subject.queries[: count * batch].reshape(count, -1)]
    api = bench.api_target(f"/v1/spaces/{REFERENCE}/{subject.space}/search?k={K}", bodies)
    ours = Meter(bench.platform.pids()["api"], requests * batch)
    threads = 1 if batch == 1 else _best_threads(subject, batch)
    pairs = interleave(
        bench.scale.rounds,
        lambda _: ours.round(
            lambda: bench.load.fire(api, connections=connections, requests=requests, work=batch)
        ),
        lambda number: _faiss(subject, batch, requests, threads, number),
    )
    bare = bench.bare_target(batch * K * _HIT_BYTES, bodies)
    empty = [
        bench.load.fire(bare, connections=connections, requests=requests, work=batch).rate
        for _ in range(bench.scale.rounds)
    ]
    asked = "one query" if batch == 1 else f"{batch} queries a request"
    return pairs.figure(
        NAME,
        f"{subject.title}, HTTP, {asked}, {connections} connection{'s' if connections > 1 else ''}",
        "queries/s",
        f"FAISS in process, {'one thread' if threads == 1 else f'{threads} threads'}",
        {
            **_details(subject),
            "processor_us": ours.microseconds,
            "bare_http_queries_per_second": median(empty),
        },
    )


def _best_threads(subject: Subject, batch: int) -> int:
    """On a busy machine several threads wait for each other longer than one takes."""
    rates = {
        threads: median([_faiss(subject, batch, 5, threads, number).rate for number in range(5)])
        for threads in {1, ALL_THREADS}
    }
    return max(rates, key=lambda threads: rates[threads])


def _faiss(subject: Subject, batch: int, requests: int, threads: int, number: int) -> Sample:
    if batch == 1:
        return _one_by_one(lambda query: subject.bare.search(query, K, 1), subject, requests, number)
    seconds = np.empty(requests)
    for place in range(requests):
        queries = subject.queries[_chosen(subject, batch, number * requests + place + 1_000_000)]
        began = time.perf_counter()
        subject.bare.search(queries, K, threads)
        seconds[place] = time.perf_counter() - began
    return Sample(requests * batch / float(seconds.sum()), seconds)
