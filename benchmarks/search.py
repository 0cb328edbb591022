"""Search: against FAISS on the same index file, in process and behind a bare ASGI application.

FAISS's effort is tuned to the recall measured here.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from bedplate.wire.store import IndexKind
from benchmarks.bare_faiss import ALL_THREADS
from benchmarks.figures import Figure, Sample, interleave, median
from benchmarks.load import Target
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
_ROUNDS = 3
_CALLS_MAX = 8_000

Call = Callable[[NDArray[np.int64]], object]


def run(bench: Workbench) -> list[Figure]:
    """Queries a second: one at a time and in batches, in process and over HTTP.

    Everything over 200,000 and 1,000,000 rows; one question to a graph over 100,000.
    """
    rows = bench.scale.rows
    plan: list[tuple[str, IndexKind, int, list[Question]]] = [
        ("ivf", "ivf", rows // SHARES["ivf"], _MATRIX),
        ("million", "ivf", rows, _MATRIX),
        ("hnsw", "hnsw", rows // SHARES["hnsw"], [Question(10, 0.95)]),
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
        *(figure for connections in (1, 4, 32) for figure in _over_http(bench, subject, 1, connections)),
        *_over_http(bench, subject, BATCH, 1),
    ]


def _in_process(bench: Workbench, subject: Match, batch: int) -> Figure:
    threads = _threads(subject, batch)
    pairs = interleave(
        _rounds(bench),
        _timed(bench, subject.ours, batch),
        _timed(bench, _by(subject, threads), batch),
    )
    what = f"{subject.title}, in process, {_asked(batch)}"
    return pairs.figure(NAME, what, "queries/s", f"FAISS in process, {_named(threads)}", subject.details)


def _over_http(bench: Workbench, subject: Match, batch: int, connections: int) -> list[Figure]:
    """Against FAISS in process, and against a bare application that calls it and does nothing else."""
    bodies = subject.bodies(batch)
    fire = _Fire(bench, bench.api_target(subject.path, bodies), connections, batch)
    threads = _threads(subject, batch)
    bare = _Fire(bench, bench.work_target(subject.work(threads), bodies), connections, batch)
    ours, theirs = (
        Meter(pid, side.requests * batch)
        for pid, side in ((bench.platform.pids()["api"], fire), (bench.bare.pid, bare))
    )
    in_process = _timed(bench, _by(subject, threads), batch)
    limits: list[tuple[str, Callable[[int], Sample]]] = [
        (f"FAISS in process, {_named(threads)}", in_process),
        (f"bare ASGI and FAISS, {_named(threads)}", lambda _: theirs.round(bare)),
    ]
    plural = "connection" if connections == 1 else "connections"
    what = f"{subject.title}, HTTP, {_asked(batch)}, {connections} {plural}"
    figures = []
    for limit_name, limit in limits:
        pairs = interleave(_rounds(bench), lambda _: ours.round(fire), limit)
        details = {**subject.details, "processor_us": ours.microseconds}
        if theirs.seconds:
            details["limit_processor_us"] = theirs.microseconds
        figures.append(pairs.figure(NAME, what, "queries/s", limit_name, details))
    return figures


class _Fire:
    """As many requests to a target as fit into the time of a round."""

    def __init__(self, bench: Workbench, target: Target, connections: int, batch: int) -> None:
        self._load, self._target, self._connections, self._batch = bench.load, target, connections, batch
        self.requests = 8 * connections
        self.requests = _count(bench, self().rate / batch, connections)

    def __call__(self) -> Sample:
        return self._load.fire(
            self._target, connections=self._connections, requests=self.requests, work=self._batch
        )


def _threads(subject: Match, batch: int) -> int:
    """One thread of FAISS; for batches all of them where that is faster.

    On a busy machine several threads wait for each other longer than one takes.
    """

    def rate(threads: int) -> float:
        return median([_fire(_by(subject, threads), batch, 3, number).rate for number in range(3)])

    return 1 if batch == 1 else max({1, ALL_THREADS}, key=rate)


def _by(subject: Match, threads: int) -> Call:
    return lambda places: subject.bare(places, threads)


def _named(threads: int) -> str:
    return "one thread" if threads == 1 else f"{threads} threads"


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
