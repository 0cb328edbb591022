"""Upserts: acknowledged rows a second, against writing the same bytes to a file and syncing it.

And how soon a write is seen by who does not carry its token: afterwards, while a worker compacts what was
written, and while 100,000 rows a second are being written.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray

from bedplate.codecs import ARROW, JSON, encode_upsert_arrow
from benchmarks.figures import Figure, Sample, interleave, percentile_ms
from benchmarks.load import Target, wire
from benchmarks.steady_writes import SteadyWrites, Stream
from benchmarks.vectors import random_vectors
from benchmarks.workbench import LOOKUP_DIM, REFERENCE, Workbench

NAME = "upserts"
BATCH = 10_000
CONNECTIONS = (1, 4)
_SPACE = f"{REFERENCE}/written"
_BATCHES = 8
_SEEN = 40
_POLL_SECONDS = 0.002
_STEADY_ROWS = 100_000


def run(bench: Workbench) -> list[Figure]:
    """Batches of Arrow over HTTP; every key is new."""
    return [*(_rate(bench, connections) for connections in CONNECTIONS), _while_writing(bench)]


def _rate(bench: Workbench, connections: int) -> Figure:
    bench.say(f"upserts: batches of {BATCH:,} x {LOOKUP_DIM}, {connections} connections ...")
    vectors = random_vectors(BATCH, LOOKUP_DIM, seed=connections)
    first = 1_000_000_000 * connections

    def product(number: int) -> Sample:
        start = first + (number + 2) * BATCH * _BATCHES
        bodies = [
            encode_upsert_arrow(np.arange(start + batch * BATCH, start + (batch + 1) * BATCH), vectors)
            for batch in range(_BATCHES)
        ]
        return bench.load.fire(_target(bench, bodies), connections=connections, requests=_BATCHES, work=BATCH)

    def limit(number: int) -> Sample:
        seconds = np.empty(_BATCHES)
        for batch in range(_BATCHES):
            path = bench.folder / f"written-{connections}-{number}-{batch}"
            began = time.perf_counter()
            _write(path, np.arange(BATCH).data, vectors.data)
            seconds[batch] = time.perf_counter() - began
            path.unlink()
        return Sample(BATCH * _BATCHES / float(seconds.sum()), seconds)

    pairs = interleave(min(5, bench.scale.rounds), product, limit)
    seen = _seconds_until_seen(bench, first - 1_000_000, _SEEN)
    return pairs.figure(
        NAME,
        f"batches of {BATCH:,} x {LOOKUP_DIM} float32 over HTTP, {connections} connections",
        "rows/s",
        "write + fsync of the same bytes",
        {
            "pending_rows": float(bench.client.spaces.get(_SPACE).pending_rows),
            "visible_p50_ms": percentile_ms(seen, 50),
            "visible_p99_ms": percentile_ms(seen, 99),
        },
    )


def _while_writing(bench: Workbench) -> Figure:
    """How many rows a second were acknowledged of those sent, and how soon others were seen meanwhile."""
    bench.say(f"upserts: {_STEADY_ROWS:,} rows a second, and how soon a write is seen ...")
    stream = Stream(
        bench.platform.url,
        bench.platform.token,
        f"/v1/spaces/{_SPACE}/upsert",
        _STEADY_ROWS,
        BATCH,
        LOOKUP_DIM,
        first=9_000_000_000,
    )
    writes = SteadyWrites(stream)
    with writes:
        seen = _seconds_until_seen(bench, 8_000_000_000, 100)
    return Figure(
        NAME,
        f"rows acknowledged while {_STEADY_ROWS:,} a second are sent",
        "rows/s",
        writes.rows_per_second,
        _STEADY_ROWS,
        "rows sent",
        writes.rows_per_second / _STEADY_ROWS,
        1,
        {
            "visible_p50_ms": percentile_ms(seen, 50),
            "visible_p99_ms": percentile_ms(seen, 99),
            "visible_max_ms": percentile_ms(seen, 100),
            "load_average": os.getloadavg()[0],
        },
    )


def _target(bench: Workbench, bodies: list[bytes]) -> Target:
    token, address = bench.platform.token, urlsplit(bench.platform.url)
    path = f"/v1/spaces/{_SPACE}/upsert"
    wires = [wire(path, body, token=token, media=ARROW, accept=JSON) for body in bodies]
    return Target(address.hostname or "", address.port or 0, wires)


def _seconds_until_seen(bench: Workbench, first: int, count: int) -> NDArray[np.float64]:
    """From the acknowledgement of one row until a lookup without its token sees it, [count]."""
    client = bench.client
    seconds = np.empty(count)
    vector = np.ones((1, LOOKUP_DIM), np.float32)
    client.spaces.lookup(_SPACE, [first])  # the first one opens the space, which is another matter
    for number in range(count):
        client.spaces.upsert(_SPACE, [first + number], vector)
        acknowledged = time.perf_counter()
        while not client.spaces.lookup(_SPACE, [first + number]).found[0]:
            time.sleep(_POLL_SECONDS)
        seconds[number] = time.perf_counter() - acknowledged
    return seconds


def _write(path: Path, *parts: memoryview) -> None:
    with open(path, "wb", buffering=0) as file:
        for part in parts:
            file.write(part)
        os.fsync(file.fileno())
