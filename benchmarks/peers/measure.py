"""What every peer does, in the peer's own environment: NumPy and the standard library are all it needs.

A peer is a class with the methods of :class:`Peer`; ``run`` gives it the work and prints one JSON document.
Shapes: n rows, d dimension, q queries, k results.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

KEYS = 100
K = 10
RECALL_TARGET = 0.95
_CLOCK_TICKS = os.sysconf("SC_CLK_TCK")


class Peer(Protocol):
    """An engine: what it can do of the work, done by its own client as its documentation says."""

    name: str
    interface: str

    def start(self, folder: Path, dim: int) -> None: ...

    def load(self, keys: NDArray[np.int64], vectors: NDArray[np.float32]) -> None: ...

    def lookup(self, keys: NDArray[np.int64]) -> NDArray[np.float32]:
        """The vectors [n, d] of ``keys`` [n], in that order."""
        ...

    def processes(self) -> list[int]:
        """Process ids of its servers, other than this process."""
        ...

    def close(self) -> None: ...


@runtime_checkable
class Searcher(Peer, Protocol):
    """A peer that searches vectors as well; ``efforts`` are those of its search, cheap to dear."""

    efforts: Sequence[int]

    def search(self, query: NDArray[np.float32], k: int, effort: int) -> NDArray[np.int64]:
        """The keys [k] nearest to ``query`` [d] by inner product."""
        ...


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until(ready: Callable[[], bool], what: str, seconds: float = 600.0) -> None:
    """Poll ``ready`` until it is true.

    Raises:
        TimeoutError: naming what was waited for.
    """
    deadline = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what} was not ready within {seconds:g} s")
        time.sleep(0.05)  # servers of others tell nobody when they are ready


def listening(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def run(peer: Peer) -> None:
    """Do the work that the command line names; the last line of the output is the result."""
    parser = argparse.ArgumentParser(description=f"the work of benchmarks/peers on {peer.name}")
    parser.add_argument("work", type=Path, help="a folder written by `python -m benchmarks.peers`")
    parser.add_argument("--seconds", type=float, default=5.0, help="of each measurement")
    options = parser.parse_args()
    arrays = {path.stem: np.load(path, mmap_mode="r") for path in options.work.glob("*.npy")}
    with tempfile.TemporaryDirectory(prefix=f"bedplate-peer-{peer.name}-") as folder:
        try:
            peer.start(Path(folder), arrays["vectors"].shape[1])
            result = _measure(peer, arrays, options.seconds)
        finally:
            peer.close()
    print(json.dumps(result))
    sys.stdout.flush()


def _measure(peer: Peer, arrays: dict[str, NDArray[Any]], seconds: float) -> dict[str, Any]:
    keys, vectors = np.array(arrays["keys"]), np.array(arrays["vectors"])
    began = time.perf_counter()
    peer.load(keys, vectors)
    result: dict[str, Any] = {
        "peer": peer.name,
        "interface": peer.interface,
        "load_rows_per_second": len(keys) / (time.perf_counter() - began),
    }
    random = np.random.default_rng(1)
    _check_lookup(peer, keys, vectors, random.integers(0, len(keys), KEYS))
    result["lookup"] = _timed(peer, lambda: peer.lookup(keys[random.integers(0, len(keys), KEYS)]), seconds)
    if isinstance(peer, Searcher):
        result["search"] = _search(peer, np.array(arrays["queries"]), np.array(arrays["truth"]), seconds)
    return result


def _check_lookup(
    peer: Peer, keys: NDArray[np.int64], vectors: NDArray[np.float32], rows: NDArray[np.int64]
) -> None:
    got = np.asarray(peer.lookup(keys[rows]), np.float32)
    # Half precision is enough to be right: some store no more.
    if got.shape != (KEYS, vectors.shape[1]) or not np.allclose(got, vectors[rows], rtol=2e-3, atol=1e-3):
        raise AssertionError(f"{peer.name} did not give back the vectors that were loaded")


def _search(
    peer: Searcher, queries: NDArray[np.float32], truth: NDArray[np.int64], seconds: float
) -> dict[str, Any]:
    """The cheapest effort that reaches the recall target on half of the queries, measured on the other."""
    half = len(queries) // 2
    chosen, recall = peer.efforts[-1], 0.0
    for effort in peer.efforts:
        chosen, recall = effort, _recall(peer, queries[:half], truth[:half], effort)
        if recall >= RECALL_TARGET:
            break
    random = np.random.default_rng(2)

    def once() -> object:
        return peer.search(queries[half + random.integers(0, len(queries) - half)], K, chosen)

    measured = _timed(peer, once, seconds)
    return {**measured, "effort": chosen, "recall_at_10": _recall(peer, queries[half:], truth[half:], chosen)}


def _recall(peer: Searcher, queries: NDArray[np.float32], truth: NDArray[np.int64], effort: int) -> float:
    hits = [
        len(np.intersect1d(peer.search(query, K, effort), exact))
        for query, exact in zip(queries, truth, strict=True)
    ]
    return float(np.mean(hits)) / K


def _timed(peer: Peer, call: Callable[[], object], seconds: float) -> dict[str, float]:
    """Calls a second, one after the other, and the processor time a call costs on both sides."""
    for _ in range(5):
        call()
    taken: list[float] = []
    processor = _processor_seconds(peer)
    began = time.perf_counter()
    while time.perf_counter() - began < seconds:
        at = time.perf_counter()
        call()
        taken.append(time.perf_counter() - at)
    wall = time.perf_counter() - began
    spent = _processor_seconds(peer) - processor
    return {
        "calls_per_second": len(taken) / wall,
        "p50_ms": float(np.percentile(taken, 50)) * 1000,
        "p99_ms": float(np.percentile(taken, 99)) * 1000,
        "processor_ms_per_call": spent / len(taken) * 1000,
    }


def _processor_seconds(peer: Peer) -> float:
    """User and system time of this process and the peer's servers."""
    own = resource.getrusage(resource.RUSAGE_SELF)
    total = own.ru_utime + own.ru_stime
    for pid in peer.processes():
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        total += (int(fields[11]) + int(fields[12])) / _CLOCK_TICKS
    return total
