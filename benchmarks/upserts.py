"""Upserts: acknowledged rows a second, against writing the same bytes to a file and syncing it."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np

from bedplate.errors import InternalError
from benchmarks.figures import Figure, Sample, interleave
from benchmarks.vectors import random_vectors
from benchmarks.workbench import LOOKUP_DIM, REFERENCE, Workbench

NAME = "upserts"
BATCH = 10_000
_SPACE = f"{REFERENCE}/written"
_BATCHES = 4


def run(bench: Workbench) -> list[Figure]:
    """Batches of Arrow over HTTP, one after the other; every key is new."""
    bench.say(f"upserts: sending batches of {BATCH:,} x {LOOKUP_DIM} ...")
    client = bench.client
    rounds = min(5, bench.scale.rounds)

    def product(number: int) -> Sample:
        vectors = random_vectors(BATCH, LOOKUP_DIM, seed=number + 10)
        seconds = np.empty(_BATCHES)
        for batch in range(_BATCHES):
            keys = np.arange(BATCH) + BATCH * ((number + 10) * _BATCHES + batch)
            began = time.perf_counter()
            answer = client.spaces.upsert(_SPACE, keys, vectors)
            seconds[batch] = time.perf_counter() - began
            if answer.rows != BATCH:
                raise InternalError(f"{answer.rows} rows were acknowledged of {BATCH}")
        return Sample(BATCH * _BATCHES / float(seconds.sum()), seconds)

    def limit(number: int) -> Sample:
        vectors = random_vectors(BATCH, LOOKUP_DIM, seed=number + 1000)
        seconds = np.empty(_BATCHES)
        for batch in range(_BATCHES):
            began = time.perf_counter()
            _write(bench.folder / f"written-{number}-{batch}", np.arange(BATCH).data, vectors.data)
            seconds[batch] = time.perf_counter() - began
        return Sample(BATCH * _BATCHES / float(seconds.sum()), seconds)

    pairs = interleave(rounds, product, limit)
    return [
        pairs.figure(
            NAME,
            f"batches of {BATCH:,} x {LOOKUP_DIM} float32 over HTTP",
            "rows/s",
            "write + fsync of the same bytes",
            {"pending_rows": float(client.spaces.get(_SPACE).pending_rows)},
        )
    ]


def _write(path: Path, *parts: memoryview) -> None:
    with open(path, "wb", buffering=0) as file:
        for part in parts:
            file.write(part)
        os.fsync(file.fileno())
