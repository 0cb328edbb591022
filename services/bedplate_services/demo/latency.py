"""Latency as a client of the REST API sees it, and embedding speed against the bare model."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from bedplate import Client
from bedplate_modeling.runtime import FoundationRuntime, UserRequest

CALLS = 300
WARM_UP = 20
KEYS = 100
USERS_AT_ONCE = 512


@dataclass(frozen=True)
class Latency:
    """Milliseconds per request over one connection."""

    p50_ms: float
    p99_ms: float
    calls: int

    @classmethod
    def of(cls, call: Callable[[], object]) -> Latency:
        seconds = []
        for number in range(WARM_UP + CALLS):
            began = time.perf_counter()
            call()
            if number >= WARM_UP:
                seconds.append(time.perf_counter() - began)
        p50, p99 = np.percentile(seconds, [50, 99]) * 1000
        return cls(float(p50), float(p99), CALLS)


def lookup(client: Client, reference: str, keys: list[str]) -> Latency:
    """Looking up 100 keys of a space."""
    chosen = [keys[place % len(keys)] for place in range(KEYS)]
    return Latency.of(lambda: client.spaces.lookup(reference, chosen))


def search(client: Client, reference: str, keys: list[str]) -> Latency:
    """Ten nearest rows of one vector."""
    vector = client.spaces.lookup(reference, keys[:1]).vectors.astype(np.float32)
    return Latency.of(lambda: client.spaces.search(reference, vectors=vector, k=10))


def forward_rate(
    runtime: FoundationRuntime, requests: Sequence[UserRequest], advance: Callable[[int], None]
) -> float:
    """User vectors a second by the bare model in this process: histories in memory, nothing stored.

    Users of like history lengths go together, as in one call for all; ``advance`` is told of each part.
    """
    requests = sorted(requests, key=lambda request: len(request.history))
    seconds = 0.0
    for first in range(0, len(requests), USERS_AT_ONCE):
        part = requests[first : first + USERS_AT_ONCE]
        began = time.perf_counter()
        runtime.embed_users(part)
        seconds += time.perf_counter() - began
        advance(len(part))
    return len(requests) / seconds
