"""Snapshots swapped under readers that never stop: each answer comes from one snapshot, whole."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

DIM, ROWS, PUBLICATIONS, READERS = 4, 400, 12, 3
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
    seen: list[set[int]] = [set() for _ in range(READERS)]
    with store.readers(refresh_seconds=0.001) as readers:

        def read(mine: set[int]) -> None:
            while not stop.is_set():
                reader = readers.get(*key)
                found = reader.lookup(keys)
                hits = reader.search(np.zeros((1, DIM)), 50)
                assert found.found.all()
                assert (found.vectors == reader.snapshot).all()
                assert (hits.scores == -DIM * reader.snapshot**2).all()
                assert found.snapshot == hits.snapshot == reader.snapshot
                mine.add(reader.snapshot)

        with ThreadPoolExecutor(READERS) as pool:
            reading = [pool.submit(read, mine) for mine in seen]

            def wait_until_all_saw(number: int) -> None:
                deadline = time.monotonic() + PATIENCE_SECONDS
                while not all(number in mine for mine in seen):
                    assert time.monotonic() < deadline
                    for each in reading:
                        if each.done():
                            each.result()  # raises what went wrong in it
                    time.sleep(0.005)

            try:
                wait_until_all_saw(1)
                for number in range(2, PUBLICATIONS + 1):
                    publish(number)
                wait_until_all_saw(PUBLICATIONS)
            finally:
                stop.set()
            for each in reading:
                each.result()
