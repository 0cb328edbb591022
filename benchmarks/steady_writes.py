"""Batches that come at one rate from a process of their own, whatever they are answered."""

from __future__ import annotations

import http.client
import multiprocessing
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Event
from typing import Self
from urllib.parse import urlsplit

import numpy as np

from bedplate.codecs import ARROW, encode_upsert_arrow
from bedplate.errors import InternalError
from benchmarks.vectors import random_vectors

_BODIES = 10
_PATIENCE_SECONDS = 60.0


@dataclass(frozen=True)
class Stream:
    """``rows_per_second`` in batches of ``rows`` x ``dim`` float32, of keys from ``first`` on."""

    url: str
    token: str
    path: str
    rows_per_second: float
    rows: int
    dim: int
    first: int
    connections: int = 4


class SteadyWrites:
    """Writes while the block runs. Afterwards ``rows_per_second`` is what was acknowledged in that time.

    The block's end raises InternalError if a write was refused.
    """

    def __init__(self, stream: Stream) -> None:
        context = multiprocessing.get_context("spawn")
        self._stop: Event = context.Event()
        self._ready: Event = context.Event()
        self._answers: Queue[float | str] = context.Queue()
        self._process = context.Process(
            target=_write, args=(stream, self._ready, self._stop, self._answers), daemon=True
        )
        self.rows_per_second = 0.0

    def __enter__(self) -> Self:
        self._process.start()
        self._ready.wait(_PATIENCE_SECONDS)
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        answer = self._answers.get(timeout=_PATIENCE_SECONDS)
        self._process.join(_PATIENCE_SECONDS)
        if isinstance(answer, str):
            raise InternalError(answer)
        self.rows_per_second = answer


def _write(stream: Stream, ready: Event, stop: Event, answers: Queue[float | str]) -> None:
    vectors = random_vectors(stream.rows, stream.dim, seed=7)
    bodies = [
        encode_upsert_arrow(np.arange(start, start + stream.rows), vectors)
        for start in range(stream.first, stream.first + _BODIES * stream.rows, stream.rows)
    ]
    acknowledged, refused = [0] * stream.connections, list[str]()
    began = time.perf_counter()
    threads = [
        threading.Thread(
            target=_connection, args=(stream, number, bodies, began, stop, acknowledged, refused)
        )
        for number in range(stream.connections)
    ]
    for thread in threads:
        thread.start()
    ready.set()
    for thread in threads:
        thread.join()
    rate = sum(acknowledged) * stream.rows / (time.perf_counter() - began)
    answers.put(refused[0] if refused else rate)


def _connection(
    stream: Stream,
    number: int,
    bodies: Sequence[bytes],
    began: float,
    stop: Event,
    acknowledged: list[int],
    refused: list[str],
) -> None:
    """Every n-th batch; one that comes late is sent at once, those it held up are left out."""
    address = urlsplit(stream.url)
    connection = http.client.HTTPConnection(address.hostname or "", address.port)
    headers = {"authorization": f"Bearer {stream.token}", "content-type": ARROW}
    step = stream.rows / stream.rows_per_second
    batch = number
    while not stop.wait(max(0.0, began + batch * step - time.perf_counter())):
        connection.request("POST", stream.path, bodies[batch % len(bodies)], headers)
        answer = connection.getresponse()
        text = answer.read()
        if answer.status != http.client.OK:
            refused.append(f"a write was answered {answer.status}: {text[:500]!r}")
            break
        acknowledged[number] += 1
        late = max(0.0, time.perf_counter() - began - (batch + stream.connections) * step)
        batch += stream.connections * (1 + int(late / (stream.connections * step)))
    connection.close()
