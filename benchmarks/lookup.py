"""Lookup of 100 keys: against the bare gather in process, and against bare servers over HTTP."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bedplate.errors import InternalError
from bedplate_store.readers import SpaceReader
from benchmarks.bare_work import Lookup, Rows
from benchmarks.figures import Figure, Sample, interleave
from benchmarks.load import Target
from benchmarks.processor_time import Meter
from benchmarks.vectors import gapped_keys, mapped_random_vectors
from benchmarks.workbench import LOOKUP_DIM, REFERENCE, Workbench

NAME = "lookup"
KEYS = 100
CONNECTIONS = (1, 4, 32)
SPACES = ("float32", "float16")
_BODIES = 512


def run(bench: Workbench) -> list[Figure]:
    """Lookups a second in float32 and float16, in process and over HTTP."""
    rows = bench.scale.rows
    keys, file = gapped_keys(rows), bench.folder / "lookup-vectors"
    vectors = mapped_random_vectors(file, rows, LOOKUP_DIM)
    for space in SPACES:
        bench.say(f"lookup: publishing {rows:,} x {LOOKUP_DIM} {space} ...")
        bench.publish(space, keys, vectors, None)
        _check(bench, space, keys, vectors)
    del vectors
    file.unlink()  # its pages are not to crowd out those of the spaces
    figures = []
    for space in SPACES:
        reader = bench.reader(space)
        figures.append(_in_process(bench, reader, keys, space))
        for connections in CONNECTIONS:
            figures += _over_http(bench, reader, keys, space, connections)
    return figures


def _check(bench: Workbench, space: str, keys: NDArray[np.int64], vectors: NDArray[np.float32]) -> None:
    """A wrong answer is not worth measuring."""
    rows = _rows(len(keys), 1, seed=1)[0]
    answer = bench.client.spaces.lookup(f"{REFERENCE}/{space}", keys[rows])
    if not answer.found.all() or not np.array_equal(answer.vectors, vectors[rows].astype(space)):
        raise InternalError(f"a lookup in {space} did not give the vectors that were written")


def _rows(rows: int, batches: int, seed: int) -> NDArray[np.int64]:
    """int64 [batches, KEYS]: rows anywhere in the space; each seed gives others, cold for the CPU."""
    return np.random.default_rng(seed + 10).integers(0, rows, (batches, KEYS))


def _in_process(bench: Workbench, reader: SpaceReader, keys: NDArray[np.int64], space: str) -> Figure:
    calls = bench.scale.of(2000, 300)
    base = reader.base
    if base is None:
        raise InternalError(f"{space} has no base segment")
    vectors = base.vectors
    vectors.sum(axis=0, dtype=np.float64)  # every page is in memory before anything is timed

    def product(number: int) -> Sample:
        return _timed(reader.lookup, [keys[rows] for rows in _rows(len(keys), calls, number)])

    def gather(number: int) -> Sample:
        return _timed(vectors.__getitem__, list(_rows(len(keys), calls, number)))

    pairs = interleave(bench.scale.rounds, product, gather)
    return pairs.figure(
        NAME, f"{KEYS} keys x {LOOKUP_DIM} {space}, in process", "lookups/s", "bare gather vectors[rows]"
    )


def _timed(call: Callable[[Any], object], arguments: list[Any]) -> Sample:
    seconds = np.empty(len(arguments))
    for number, argument in enumerate(arguments):
        began = time.perf_counter()
        call(argument)
        seconds[number] = time.perf_counter() - began
    return Sample(len(seconds) / float(seconds.sum()), seconds)


def _over_http(
    bench: Workbench, reader: SpaceReader, keys: NDArray[np.int64], space: str, connections: int
) -> list[Figure]:
    """Against three limits: prepared bytes, the same rows read by their numbers, and the whole lookup."""
    requests = bench.scale.of(3000, 400) * min(connections, 8)
    answer_bytes = KEYS * (LOOKUP_DIM * np.dtype(reader.storage.answers).itemsize + 1)
    rows = _rows(len(keys), _BODIES, seed=2)
    bodies = [keys[each].astype("<i8").tobytes() for each in rows]
    file = None if reader.base is None else reader.base.vectors_path
    if file is None:
        raise InternalError(f"{space} has no file of vectors")
    api = bench.api_target(f"/v1/spaces/{REFERENCE}/{space}/lookup", bodies)
    numbers = [each.astype("<i8").tobytes() for each in rows]
    by_number = Rows(str(file), reader.dtype, LOOKUP_DIM)
    keys_file = bench.folder / "lookup-keys.npy"
    np.save(keys_file, keys)
    by_key = Lookup(str(file), reader.dtype, LOOKUP_DIM, str(keys_file))
    limits = {
        "bare ASGI, prepared bytes": bench.bare_target(answer_bytes, bodies),
        "bare ASGI, rows by number": bench.work_target(by_number, numbers),
        "bare ASGI, keys searched": bench.work_target(by_key, bodies),
    }
    plural = "connection" if connections == 1 else "connections"
    name = f"{KEYS} keys x {LOOKUP_DIM} {space}, HTTP, {connections} {plural}"
    return [
        _against(bench, name, limit_name, api, limit, connections, requests)
        for limit_name, limit in limits.items()
    ]


def _against(
    bench: Workbench, name: str, limit_name: str, api: Target, limit: Target, connections: int, requests: int
) -> Figure:
    ours = Meter(bench.platform.pids()["api"], requests)
    theirs = Meter(bench.bare.pid, requests)
    pairs = interleave(
        bench.scale.rounds,
        lambda _: ours.round(lambda: bench.load.fire(api, connections=connections, requests=requests)),
        lambda _: theirs.round(lambda: bench.load.fire(limit, connections=connections, requests=requests)),
    )
    details = {"processor_us": ours.microseconds, "limit_processor_us": theirs.microseconds}
    return pairs.figure(NAME, name, "lookups/s", limit_name, details)
