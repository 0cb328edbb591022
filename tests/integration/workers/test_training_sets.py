"""From the spool of a serving process to a training set, by jobs alone."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import numpy as np

from bedplate.wire.store import Outcome, TrainingSetCreate
from bedplate_store import jobs, outcomes, training_sets
from bedplate_store.impressions import ImpressionLog, ImpressionRecord
from bedplate_store.times import microseconds
from bedplate_workers.job_kinds import HANDLERS
from bedplate_workers.log_sealing import MAX_AGE_SECONDS, LogSealer


def serve(bench: Any, request_id: str) -> None:
    """Log one request as the inference service does."""
    place = bench.workplace
    log = ImpressionLog(place.spool_dir, place.objects, place.store)
    log.append(
        ImpressionRecord(
            request_id=request_id,
            user="anna",
            surface="feed",
            served_at_us=microseconds(bench.clock()),
            items=["a", "b"],
            expert=None,
            scores=None,
            tae={"core@1": np.ones((2, 4), np.float16)},
            predictions={"core@1": np.array([0.25, 0.75], np.float32)},
        )
    )
    log.close()


def test_a_job_seals_the_log_and_another_joins_it(bench: Any, clock: Any) -> None:
    store = bench.workplace.store
    serve(bench, "r-1")
    with store.write() as session:
        sealing = jobs.create(
            session,
            kind="seal_log",
            subject="log",
            team="platform",
            params={},
            stages=[jobs.Stage("seal", [jobs.PartitionSpec({}, 1)])],
            now=clock(),
        )
    worker = bench.worker(HANDLERS)
    bench.work_all(worker)
    sealed = bench.state(sealing).result
    assert sealed is not None
    assert (sealed["requests"], sealed["rows"]) == (1, 2)

    label = Outcome(request_id="r-1", item="b", label=1.0, outcome_time=clock())
    with store.write() as session:
        outcomes.record(session, "feed", [label], now=clock())
        made = training_sets.create(
            session,
            TrainingSetCreate(
                name="first",
                surface="feed",
                versions=["core@1"],
                window_start=clock() - timedelta(days=30),
                window_end=clock() + timedelta(seconds=1),
            ),
            team="feed",
            now=clock(),
        )
    bench.work_all(worker)
    with store.read() as session:
        ready = training_sets.get(session, made.id)
    assert (ready.state, ready.rows, ready.requests) == ("ready", 1, 1)


def test_the_sealer_waits_until_a_spool_file_is_old_enough(bench: Any, clock: Any) -> None:
    place = bench.workplace
    serve(bench, "r-1")
    sealer = LogSealer(place.spool_dir, place.objects, place.store)
    assert sealer.seal(clock() - timedelta(days=1)) == 0
    assert sealer.seal(clock() + timedelta(days=3650, seconds=MAX_AGE_SECONDS)) == 1
