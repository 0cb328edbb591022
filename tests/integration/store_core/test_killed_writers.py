"""Real processes, killed with SIGKILL: what was acknowledged is there, and is seen in time."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np

from bedplate_store import collection
from bedplate_store.readers import SpaceReaders

DIM = 4
VISIBLE_SECONDS = 1.0
# Writes for ever: every third time it deletes what it wrote before; says so once the store has answered.
WRITER = """
import json, sys
from datetime import UTC, datetime
import numpy as np
from bedplate_store.database import Database
from bedplate_store.objects import open_object_store
from bedplate_store.writes import Writes

(url, objects, space, start), keys = sys.argv[1:5], json.loads(sys.argv[5])
space, start = json.loads(space), int(start)
writes = Writes(Database(url), open_object_store(objects, **keys))
place = dict(zip(("foundation", "version", "space"), space))
step = start
while True:
    step += 1
    if step % 3 == 0:
        answer = writes.delete(**place, keys=[step - 1], now=datetime.now(UTC))
    else:
        vectors = np.full((50, 4), step, np.float32)
        keys = np.append(np.arange(49) + 1_000_000, step)
        answer = writes.upsert(**place, keys=keys, vectors=vectors, now=datetime.now(UTC))
    print(step, answer.sequence, flush=True)
"""


def _writer(store: Any, key: Any, start: int) -> subprocess.Popen[str]:
    url = store.database.engine.url.render_as_string(hide_password=False)
    objects = store.object_place
    arguments = [url, objects.url, json.dumps(list(key)), str(start), json.dumps(objects.keys)]
    return subprocess.Popen([sys.executable, "-c", WRITER, *arguments], stdout=subprocess.PIPE, text=True)


def test_acknowledged_writes_survive_kill_9(store: Any) -> None:
    key = store.space()
    acknowledged = [0]
    # The step after the last acknowledged one may have been committed without an answer.
    unanswered: set[int] = set()
    for round_, acks in enumerate((1, 2, 7, 12)):
        with _writer(store, key, start=acknowledged[-1] + 1) as process:
            assert process.stdout is not None
            acknowledged += [int(process.stdout.readline().split()[0]) for _ in range(acks)]
            process.send_signal(signal.SIGKILL)
            # It may have acknowledged more before the signal came.
            acknowledged += [int(line.split()[0]) for line in process.stdout if line.endswith("\n")]
        unanswered.add(acknowledged[-1] + 1)
        if round_ == 1:  # what a killed writer left unreferenced goes, what it acknowledged stays
            collection.collect(
                store.database,
                store.objects,
                now=datetime.now(UTC) + timedelta(days=1),
                grace=timedelta(hours=1),
            )
        _check(store, key, acknowledged, unanswered)


def _check(store: Any, key: Any, acknowledged: list[int], unanswered: set[int]) -> None:
    reader = SpaceReaders(store.database, store.object_place.open(), store.cache_dir).get(*key)
    upserts = [step for step in acknowledged if step % 3]
    deleted = {step - 1 for step in acknowledged if step % 3 == 0}
    result = reader.lookup(upserts)
    uncertain = {step - 1 for step in unanswered if step % 3 == 0}
    for step, found, vector in zip(upserts, result.found, result.vectors, strict=True):
        if step in deleted:
            assert not found
        elif step not in uncertain:
            assert found
            assert vector.tolist() == [step] * DIM
    assert reader.sequence >= len(acknowledged) - 1
    shared = reader.lookup(np.arange(49) + 1_000_000)
    assert shared.found.all()
    assert (shared.vectors == shared.vectors[0]).all()  # a batch is seen whole
    assert shared.vectors[0, 0] >= max(upserts)


def test_writes_of_another_process_are_seen_within_a_second(store: Any) -> None:
    key = store.space()
    store.upsert(key, [0], np.zeros((1, DIM)))
    with SpaceReaders(store.database, store.objects, store.cache_dir) as readers:
        readers.get(*key)
        with _writer(store, key, start=0) as process:
            assert process.stdout is not None
            for _ in range(5):
                sequence = int(process.stdout.readline().split()[1])
                answered = time.monotonic()
                while readers.get(*key).sequence < sequence and time.monotonic() - answered < 10:
                    time.sleep(0.01)  # two real processes; there is no clock to inject
                took = time.monotonic() - answered
                if took >= VISIBLE_SECONDS:
                    break
            process.kill()
        assert took < VISIBLE_SECONDS
