"""Snapshots swapped under readers that never stop: each answer comes from one snapshot, whole."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

DIM, ROWS, PUBLICATIONS = 4, 400, 12
PATIENCE_SECONDS = 60.0


def test_no_answer_mixes_snapshots(store: Any) -> None:
    key = store.space(metric="l2")
    keys = np.arange(ROWS)

    def publish(number: int) -> None:
        # Every vector holds the number of its snapshot, so a mixture would show at once.
        partition = store.partition(key, keys, np.full((ROWS, DIM), number, np.float32))
        store.publish(store.prepare(key, partition))

    publish(1)
    stop = threading.Event()
    with store.readers(refresh_seconds=0.001) as readers:

        def read() -> set[int]:
            seen = set()
            while not stop.is_set():
                reader = readers.get(*key)
                found = reader.lookup(keys)
                hits = reader.search(np.zeros((1, DIM)), 50)
                assert found.found.all()
                assert (found.vectors == reader.snapshot).all()
                assert (hits.scores == -DIM * reader.snapshot**2).all()
                assert found.snapshot == hits.snapshot == reader.snapshot
                seen.add(reader.snapshot)
            return seen

        with ThreadPoolExecutor(3) as pool:
            reading = [pool.submit(read) for _ in range(3)]
            try:
                for number in range(2, PUBLICATIONS + 1):
                    publish(number)
                deadline = time.monotonic() + PATIENCE_SECONDS
                while readers.get(*key).snapshot < PUBLICATIONS:
                    assert time.monotonic() < deadline
                    time.sleep(0.005)
            finally:
                stop.set()
            assert all(len(each.result()) > 1 for each in reading)
