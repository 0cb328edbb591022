"""What the Python client costs: lookups by ``bedplate.Client`` against the same bytes by ``http.client``."""

from __future__ import annotations

import time
from collections.abc import Callable
from http.client import HTTPConnection

import httpx
import numpy as np

from benchmarks.figures import Figure, Sample, interleave
from benchmarks.vectors import gapped_keys, random_vectors
from benchmarks.workbench import LOOKUP_DIM, REFERENCE, Workbench

NAME = "sdk"
KEYS = 100
_ROWS = 50_000
_SPACE = "sdk"


def run(bench: Workbench) -> list[Figure]:
    """Lookups a second by one thread; ``httpx_per_second`` is what httpx reaches with the bare server."""
    bench.say(f"sdk: publishing {_ROWS:,} x {LOOKUP_DIM} float32 ...")
    keys = gapped_keys(_ROWS)
    bench.publish(_SPACE, keys, random_vectors(_ROWS, LOOKUP_DIM), None)
    asked = keys[np.random.default_rng(3).integers(0, _ROWS, KEYS)]
    body, answer_bytes = asked.astype("<i8").tobytes(), KEYS * (LOOKUP_DIM * 4 + 1)
    calls = bench.scale.of(2000, 300)
    connection = HTTPConnection(bench.bare.host, bench.bare.port)
    web = httpx.Client(base_url=f"http://{bench.bare.host}:{bench.bare.port}")

    def bare() -> None:
        connection.request("POST", f"/{answer_bytes}", body)
        connection.getresponse().read()

    pairs = interleave(
        bench.scale.rounds,
        lambda _: _timed(lambda: bench.client.spaces.lookup(f"{REFERENCE}/{_SPACE}", asked), calls),
        lambda _: _timed(bare, calls),
    )
    by_httpx = _timed(lambda: web.post(f"/{answer_bytes}", content=body), calls)
    web.close()
    connection.close()
    return [
        pairs.figure(
            NAME,
            f"{KEYS} keys x {LOOKUP_DIM} float32, bedplate.Client, one thread",
            "lookups/s",
            "http.client and a bare ASGI server, same bytes",
            {"httpx_per_second": by_httpx.rate},
        )
    ]


def _timed(call: Callable[[], object], calls: int) -> Sample:
    seconds = np.empty(calls)
    for number in range(calls):
        began = time.perf_counter()
        call()
        seconds[number] = time.perf_counter() - began
    return Sample(calls / float(seconds.sum()), seconds)
