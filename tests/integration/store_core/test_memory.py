"""Segments and indexes are mapped, not loaded: a swap of snapshots takes no anonymous memory worth naming."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bedplate.wire.store import IndexSpecification

ROWS, DIM = 40_000, 256
COPY_BYTES = ROWS * DIM * 4


def _anonymous_bytes() -> int:
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if "RssAnon" in line]
    return int(line.split()[1]) * 1024


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells mapped memory from anonymous")
def test_two_snapshots_open_at_once_are_not_copied(store: Any) -> None:
    key = store.space(dim=DIM)
    vectors = np.random.default_rng(1).standard_normal((ROWS, DIM), np.float32)
    queries = vectors[:4].copy()
    readers = store.readers()
    held, used = [], []
    for number in (1, 2):
        partition = store.partition(key, np.arange(ROWS), vectors * number)
        store.publish(store.prepare(key, partition, specification=IndexSpecification(kind="flat")))
        before = _anonymous_bytes()
        reader = readers.refresh_now(*key)
        held.append(reader)  # as a slow request does while the next snapshot is opened
        assert reader.snapshot == number
        for start in range(0, ROWS, 1000):
            assert reader.lookup(np.arange(start, start + 1000)).found.all()
        assert reader.search(queries, 10).found.all()
        used.append(_anonymous_bytes() - before)
    # The segment holds the vectors, a flat index none: loading it would take one copy a snapshot.
    assert max(used) < COPY_BYTES / 4, used
