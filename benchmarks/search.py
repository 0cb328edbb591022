"""Search: against FAISS in process on the same index file, its effort tuned to the recall measured here."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from bedplate.wire.store import IndexKind
from benchmarks.bare_faiss import ALL_THREADS
from benchmarks.figures import Figure, Sample, interleave, median
from benchmarks.processor_time import Meter
from benchmarks.search_subjects import QUERIES, RECALL_TARGET, Match, Question, match, publish
from benchmarks.workbench import Workbench

__all__ = ["NAME", "RECALL_TARGET", "SHARES", "run"]

NAME = "search"
BATCH = 256
SHARES: dict[IndexKind, int] = {"ivf": 5, "hnsw": 10}
"""Kinds of indexes, each over this part of the lookup's rows: 200,000 and 100,000 of 1,000,000."""
_MATRIX = [
    Question(k, recall, filtered, by_key)
    for filtered, by_key in ((False, False), (True, False), (False, True))
    for k in (10, 100)
    for recall in (0.95, 0.99)
]
_SHORT = [Question(10, 0.95), Question(10, 0.99)]
_ROUNDS = 5
_HIT_BYTES = 12  # an int64 key and a float32 score
_CALLS_MAX = 8_000

Call = Callable[[NDArray[np.int64]], object]


def run(bench: Workbench) -> list[Figure]:
    """Queries a second: one at a time and in batches, in process and over HTTP.

    Everything over 200,000 rows; in short over 1,000,000, and of a graph over 100,000.
    """
    rows = bench.scale.rows
    plan: list[tuple[str, IndexKind, int, list[Question]]] = [
        ("ivf", "ivf", rows // SHARES["ivf"], _MATRIX),
        ("million", "ivf", rows, _SHORT),
        ("hnsw", "hnsw", rows // SHARES["hnsw"], _SHORT[:1]),
    ]
    figures = []
    for space, kind, count, questions in plan:
        subject = publish(bench, space, kind, count)
        for question in questions:
            figures += _measure(bench, match(bench, subject, question))
    return figures


def _measure(bench: Workbench, subject: Match) -> list[Figure]:
    bench.say(f"search: {subject.title} ...")
    return [
        _in_process(bench, subject, 1),
        _in_process(bench, subject, BATCH),
        *(_over_http(bench, subject, 1, connections) for connections in (1, 4, 32)),
        _over_http(bench, subject, BATCH, 1),
    ]


def _in_process(bench: Workbench, subject: Match, batch: int) -> Figure:
    bare, limit_name = _limit(subject, batch)
    pairs = interleave(
        _rounds(bench),
        _timed(bench, subject.ours, batch),
        _timed(bench, bare, batch),
    )
    return pairs.figure(
        NAME, f"{subject.title}, in process, {_asked(batch)}", "queries/s", limit_name, subject.details
    )


def _over_http(bench: Workbench, subject: Match, batch: int, connections: int) -> Figure:
    bodies = subject.bodies(batch)
    api = bench.api_target(subject.path, bodies)
    trial = 8 * connections
    rate = bench.load.fire(api, connections=connections, requests=trial).rate
    requests = _count(bench, rate, connections)
    ours = Meter(bench.platform.pids()["api"], requests * batch)
    bare, limit_name = _limit(subject, batch)
    pairs = interleave(
        _rounds(bench),
        lambda _: ours.round(
            lambda: bench.load.fire(api, connections=connections, requests=requests, work=batch)
        ),
        _timed(bench, bare, batch),
    )
    empty = bench.bare_target(batch * subject.question.k * _HIT_BYTES, bodies)
    plural = "connection" if connections == 1 else "connections"
    return pairs.figure(
        NAME,
        f"{subject.title}, HTTP, {_asked(batch)}, {connections} {plural}",
        "queries/s",
        limit_name,
        {
            **subject.details,
            "processor_us": ours.microseconds,
            "bare_http_queries_per_second": bench.load.fire(
                empty, connections=connections, requests=requests, work=batch
            ).rate,
        },
    )


def _limit(subject: Match, batch: int) -> tuple[Call, str]:
    """FAISS by one thread; batches by all of them where that is faster.

    On a busy machine several threads wait for each other longer than one takes.
    """

    def by(threads: int) -> Call:
        return lambda places: subject.bare(places, threads)

    def rate(threads: int) -> float:
        return median([_fire(by(threads), batch, 3, number).rate for number in range(3)])

    threads = 1 if batch == 1 else max({1, ALL_THREADS}, key=rate)
    return by(threads), f"FAISS in process, {'one thread' if threads == 1 else f'{threads} threads'}"


def _timed(bench: Workbench, call: Call, batch: int) -> Callable[[int], Sample]:
    """A round of as many calls as fit into its time, each of queries of its own."""
    calls = _count(bench, _fire(call, batch, 3, -3).rate / batch, 1)
    return lambda number: _fire(call, batch, calls, number)


def _fire(call: Call, batch: int, calls: int, number: int) -> Sample:
    places = np.random.default_rng(number + 10).integers(0, QUERIES, (calls, batch))
    seconds = np.empty(calls)
    for place, chosen in enumerate(places):
        began = time.perf_counter()
        call(chosen)
        seconds[place] = time.perf_counter() - began
    return Sample(calls * batch / float(seconds.sum()), seconds)


def _count(bench: Workbench, calls_per_second: float, connections: int) -> int:
    """Calls of a round."""
    return max(2, connections, min(int(calls_per_second * _seconds(bench)), _CALLS_MAX))


def _seconds(bench: Workbench) -> float:
    return 0.05 if bench.scale.quick else 0.2


def _rounds(bench: Workbench) -> int:
    return min(bench.scale.rounds, _ROUNDS)


def _asked(batch: int) -> str:
    return "one query" if batch == 1 else f"{batch} queries a request"
