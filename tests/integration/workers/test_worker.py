"""What happens to a partition: done once, tried again, buried, lost, given back."""

from __future__ import annotations

import time
from typing import Any

import pytest
from sqlalchemy import select

from bedplate.errors import InvalidRequest, LeaseLost
from bedplate.wire.store import Item
from bedplate_store import items, jobs, leases
from bedplate_store.database import WriteSession
from bedplate_store.leases import Claim
from bedplate_store.tables.jobs import PartitionRow
from bedplate_workers.handlers import Finish, Progress, Workplace, result
from bedplate_workers.heartbeats import Heartbeat, Interrupted


def count(_workplace: Workplace, claim: Claim, _progress: Progress) -> Finish:
    return result({"number": claim.params["number"]})


def add_up(workplace: Workplace, claim: Claim, _progress: Progress) -> Finish:
    with workplace.store.read() as session:
        numbers = [each["number"] for each in jobs.results(session, claim.job_id, "count")]
    return result({"sum": sum(numbers)})


COUNTING = {("count", "count"): count, ("count", "sum"): add_up}


def test_a_job_runs_through_its_stages(bench: Any) -> None:
    job = bench.job(partitions=4)
    endings = bench.work_all(bench.worker(COUNTING))
    assert endings == ["done"] * 5
    state = bench.state(job)
    assert (state.state, state.result) == ("succeeded", {"sum": 6})


def test_something_is_done_after_each_partition(bench: Any) -> None:
    calls: list[str] = []
    bench.job(partitions=1)
    worker = bench.worker(COUNTING, after_work=lambda: calls.append("called"))
    assert worker.work("job-of-another-database/0/0") == "not_due"
    assert calls == []
    bench.work_all(worker)
    assert len(calls) == 2


def test_a_doubled_message_changes_nothing(bench: Any) -> None:
    job = bench.job(partitions=2)
    worker = bench.worker(COUNTING)
    first, second = bench.messages()
    assert [worker.work(each) for each in (first, first, second, second)] == [
        "done",
        "not_due",
        "done",
        "not_due",
    ]
    bench.work_all(worker)
    assert bench.state(job).result == {"sum": 1}
    assert bench.state(job).attempts == 3


def test_an_unknown_partition_is_no_error(bench: Any) -> None:
    assert bench.worker(COUNTING).work("job-of-another-database/0/0") == "not_due"


def test_an_error_is_tried_again_and_forgotten_when_it_passes(bench: Any) -> None:
    tries: list[int] = []

    def flaky(workplace: Workplace, claim: Claim, progress: Progress) -> Finish:
        tries.append(claim.attempt)
        if len(tries) == 1:
            raise ConnectionError("the object store is away")
        return count(workplace, claim, progress)

    job = bench.job(partitions=1)
    endings = bench.work_all(bench.worker({**COUNTING, ("count", "count"): flaky}))
    assert endings == ["failed", "done", "done"]
    assert tries == [1, 2]
    assert bench.state(job).state == "succeeded"


def test_a_poison_partition_fails_the_job_with_its_reason(bench: Any) -> None:
    def poison(_workplace: Workplace, _claim: Claim, _progress: Progress) -> Finish:
        raise InvalidRequest("row 3 holds NaN; mend the model")

    job = bench.job(partitions=1, max_attempts=2)
    assert bench.work_all(bench.worker({("count", "count"): poison})) == ["failed", "buried"]
    state = bench.state(job)
    assert state.state == "failed"
    assert state.error is not None
    assert "The request is malformed: row 3 holds NaN; mend the model" in state.error


def test_a_job_kind_nobody_knows_says_so(bench: Any) -> None:
    job = bench.job(kind="paint", partitions=1, max_attempts=1)
    assert bench.work_all(bench.worker(COUNTING)) == ["buried"]
    assert "No worker handles stage 'count' of 'paint' jobs" in (bench.state(job).error or "")


def test_what_a_late_holder_wrote_is_rolled_back_with_its_commit(bench: Any, clock: Any) -> None:
    """It froze, its lease passed on, the other one finished; then it wakes up and commits."""

    def freeze(_workplace: Workplace, claim: Claim, _progress: Progress) -> Finish:
        clock.advance(31)
        assert bench.worker(COUNTING, owner="other").work(claim.partition_id) == "done"

        def finish(session: WriteSession) -> dict[str, Any]:
            items.upsert(session, [Item(key="written-by-the-late-one")], now=clock())
            return {"number": 99}

        return finish

    job = bench.job(partitions=1)
    (partition,) = bench.messages()
    assert bench.worker({("count", "count"): freeze}).work(partition) == "lease_lost"
    with bench.workplace.store.read() as session:
        assert items.count(session) == 0
    bench.work_all(bench.worker(COUNTING))
    assert bench.state(job).result == {"sum": 0}


def test_the_error_of_a_late_holder_does_not_fail_the_partition(bench: Any, clock: Any) -> None:
    def freeze_and_fail(_workplace: Workplace, claim: Claim, _progress: Progress) -> Finish:
        clock.advance(31)
        assert bench.worker(COUNTING, owner="other").work(claim.partition_id) == "done"
        raise ConnectionError("too late to matter")

    job = bench.job(partitions=1)
    (partition,) = bench.messages()
    assert bench.worker({("count", "count"): freeze_and_fail}).work(partition) == "lease_lost"
    bench.work_all(bench.worker(COUNTING))
    assert bench.state(job).state == "succeeded"


def test_a_finish_that_raises_leaves_nothing_and_is_tried_again(bench: Any, clock: Any) -> None:
    tries: list[int] = []

    def publish(_workplace: Workplace, claim: Claim, _progress: Progress) -> Finish:
        def finish(session: WriteSession) -> dict[str, Any]:
            items.upsert(session, [Item(key=f"attempt-{claim.attempt}")], now=clock())
            tries.append(claim.attempt)
            if claim.attempt == 1:
                raise InvalidRequest("not yet")
            return {"number": 1}

        return finish

    bench.job(partitions=1)
    bench.work_all(bench.worker({**COUNTING, ("count", "count"): publish}))
    with bench.workplace.store.read() as session:
        assert list(items.get_many(session, ["attempt-1", "attempt-2"])) == ["attempt-2"]
    assert tries == [1, 2]


def test_a_worker_told_to_stop_gives_the_partition_back_without_costing_an_attempt(bench: Any) -> None:
    def long(workplace: Workplace, claim: Claim, progress: Progress) -> Finish:
        progress(0)
        return count(workplace, claim, progress)

    job = bench.job(partitions=1, max_attempts=1)
    (partition,) = bench.messages()
    handlers = {**COUNTING, ("count", "count"): long}
    assert bench.worker(handlers, stopping=lambda: True).work(partition) == "interrupted"
    assert bench.work_all(bench.worker(handlers)) == ["done", "done"]
    assert bench.state(job).state == "succeeded"


def test_a_heartbeat_holds_the_lease_and_stores_the_progress(bench: Any, clock: Any) -> None:
    job = bench.job(partitions=1)
    (partition,) = bench.messages()
    claim = leases.claim(bench.workplace.store, partition, "me", 30, clock())
    assert claim is not None
    heartbeat = Heartbeat(bench.workplace.store, claim, lease_seconds=30, now=clock)
    clock.advance(20)
    heartbeat(1)
    heartbeat.beat()
    clock.advance(20)
    assert leases.claim(bench.workplace.store, partition, "other", 30, clock()) is None
    assert bench.state(job).progress[0].done == 1


def test_the_handler_learns_from_its_heartbeat_that_the_lease_is_lost(bench: Any, clock: Any) -> None:
    bench.job(partitions=1)
    (partition,) = bench.messages()
    claim = leases.claim(bench.workplace.store, partition, "me", 30, clock())
    assert claim is not None
    heartbeat = Heartbeat(bench.workplace.store, claim, lease_seconds=30, now=clock)
    clock.advance(31)
    heartbeat.beat()
    with pytest.raises(LeaseLost):
        heartbeat(1)


def test_the_heartbeat_thread_beats_by_itself(bench: Any, clock: Any) -> None:
    bench.job(partitions=1)
    (partition,) = bench.messages()
    claim = leases.claim(bench.workplace.store, partition, "me", 0.03, clock())
    assert claim is not None

    def expiry() -> object:
        with bench.workplace.store.read() as session:
            return session.scalar(select(PartitionRow.lease_expires_at).where(PartitionRow.id == partition))

    before = expiry()
    clock.advance(0.01)
    stopping = False
    with Heartbeat(
        bench.workplace.store, claim, lease_seconds=0.03, now=clock, stopping=lambda: stopping
    ) as heartbeat:
        while expiry() == before:  # pytest's time limit ends it, should no beat come
            time.sleep(0.005)
        stopping = True
        with pytest.raises(Interrupted):
            heartbeat(0)
