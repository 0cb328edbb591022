"""The job ledger on both databases: stages, leases, fencing, retries, outbox and reconciler."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from typing import Any

import pytest

from bedplate.errors import Conflict, InvalidRequest, LeaseLost, NotFound
from bedplate.wire.store import Item, Job
from bedplate_store import items, jobs, leases, outbox, reconciler
from bedplate_store.database import Database
from bedplate_store.leases import Claim
from bedplate_store.ledger import retry_seconds

LEASE = 30.0


def create(database: Database, now: datetime, partitions: Sequence[int] = (2, 1), **given: Any) -> Job:
    stages = [
        jobs.Stage(
            f"stage{position}",
            [jobs.PartitionSpec({"ordinal": ordinal}, 10) for ordinal in range(count)],
        )
        for position, count in enumerate(partitions)
    ]
    fields: dict[str, Any] = {
        "kind": "embed",
        "subject": "core@1/item",
        "team": "foundation",
        "params": {"seed": 5},
        "stages": stages,
        "now": now,
    }
    with database.write() as session:
        return jobs.create(session, **{**fields, **given})


def sent(database: Database, now: datetime) -> list[str]:
    messages: list[tuple[str, list[Any]]] = []
    outbox.drain(database, lambda task, arguments: messages.append((task, arguments)), now)
    assert all(task == "bedplate.work" for task, _ in messages)
    return [partition_id for _, (partition_id,) in messages]


def claimed(database: Database, partition_id: str, now: datetime, owner: str = "worker") -> Claim:
    claim = leases.claim(database, partition_id, owner, LEASE, now)
    assert claim is not None
    return claim


def commit(database: Database, claim: Claim, result: dict[str, Any], now: datetime) -> None:
    with database.write() as session:
        leases.commit(session, claim, result, now)


def get(database: Database, job: Job) -> Job:
    with database.read() as session:
        return jobs.get(session, job.id)


def test_stages_run_one_after_the_other_and_the_last_result_is_the_jobs(
    database: Database, now: datetime
) -> None:
    job = create(database, now, [2, 0, 1])
    assert job.state == "queued"
    first, second = sent(database, now)
    claim = claimed(database, first, now)
    assert (claim.kind, claim.stage, claim.ordinal, claim.params, claim.job_params, claim.attempt) == (
        "embed",
        "stage0",
        0,
        {"ordinal": 0},
        {"seed": 5},
        1,
    )
    leases.heartbeat(database, claim, LEASE, now, done=4)
    running = get(database, job)
    assert running.state == "running"
    assert running.started_at == now
    assert [(stage.done, stage.total) for stage in running.progress] == [(4, 20), (0, 0), (0, 10)]
    commit(database, claim, {"part": 0}, now)
    assert sent(database, now) == []
    with database.read() as session, pytest.raises(Conflict, match="not done"):
        jobs.results(session, job.id, "stage0")
    commit(database, claimed(database, second, now), {"part": 1}, now)
    with database.read() as session:
        assert jobs.results(session, job.id, "stage0") == [{"part": 0}, {"part": 1}]
        assert jobs.results(session, job.id, "stage1") == []
    (last,) = sent(database, now)  # the empty stage in between was skipped
    commit(database, claimed(database, last, now), {"snapshot": 3}, now + timedelta(seconds=9))
    done = get(database, job)
    assert (done.state, done.result, done.attempts) == ("succeeded", {"snapshot": 3}, 3)
    assert done.finished_at == now + timedelta(seconds=9)
    assert leases.claim(database, last, "late", LEASE, now) is None


def test_a_job_without_any_work_has_succeeded(database: Database, now: datetime) -> None:
    assert create(database, now, [0, 0]).state == "succeeded"


def test_bad_jobs_are_refused(database: Database, now: datetime) -> None:
    with pytest.raises(InvalidRequest):
        create(database, now, [])
    with pytest.raises(InvalidRequest):
        create(database, now, stages=[jobs.Stage("a"), jobs.Stage("a")])
    with database.read() as session, pytest.raises(NotFound):
        jobs.get(session, "job-none")


def test_an_idempotency_key_finds_its_job_again(database: Database, now: datetime) -> None:
    job = create(database, now, idempotency_key="k")
    assert create(database, now, idempotency_key="k").id == job.id
    assert create(database, now, idempotency_key="k", team="other").id != job.id
    with pytest.raises(Conflict, match="another key"):
        create(database, now, idempotency_key="k", subject="core@2/item")
    assert len(sent(database, now)) == 4


def test_many_threads_with_one_idempotency_key_make_one_job(database: Database, now: datetime) -> None:
    with ThreadPoolExecutor(6) as pool:
        made = [*pool.map(lambda _: create(database, now, idempotency_key="k"), range(6))]
    assert len({job.id for job in made}) == 1


def test_jobs_are_listed_newest_first(database: Database, now: datetime) -> None:
    old = create(database, now)
    new = create(database, now + timedelta(seconds=1), subject="core@2/item")
    with database.write() as session:
        jobs.cancel(session, old.id, now)
    with database.read() as session:
        assert [job.id for job in jobs.list(session)] == [new.id, old.id]
        assert [job.id for job in jobs.list(session, state="cancelled")] == [old.id]
        assert [job.id for job in jobs.list(session, subject="core@2/item")] == [new.id]


def test_a_frozen_worker_cannot_commit_after_its_lease_expired(database: Database, now: datetime) -> None:
    job = create(database, now)
    claim = claimed(database, sent(database, now)[0], now)
    woken = now + timedelta(seconds=LEASE)

    def write_and_commit() -> None:
        with database.write() as session:
            items.upsert(session, [Item(key="half-written")], now=now)
            leases.commit(session, claim, {}, woken)

    with pytest.raises(LeaseLost):
        write_and_commit()
    with database.read() as session:
        assert items.get_many(session, ["half-written"]) == {}
    with pytest.raises(LeaseLost):
        leases.heartbeat(database, claim, LEASE, woken)
    with pytest.raises(LeaseLost):
        leases.fail(database, claim, "too late", woken)
    assert get(database, job).progress[0].done == 0


def test_a_frozen_worker_cannot_commit_over_its_successor(database: Database, now: datetime) -> None:
    job = create(database, now, [1])
    (partition_id,) = sent(database, now)
    frozen = claimed(database, partition_id, now, "frozen")
    later = now + timedelta(seconds=LEASE + 1)
    successor = claimed(database, partition_id, later, "successor")
    assert successor.fencing_token > frozen.fencing_token
    # The frozen one read the clock before it froze: only the token can tell.
    for action in (
        lambda: commit(database, frozen, {"by": "frozen"}, now),
        lambda: leases.heartbeat(database, frozen, LEASE, now),
        lambda: leases.fail(database, frozen, "no", now),
    ):
        with pytest.raises(LeaseLost):
            action()
    commit(database, successor, {"by": "successor"}, later)
    with pytest.raises(LeaseLost):
        commit(database, frozen, {"by": "frozen"}, now)
    assert get(database, job).result == {"by": "successor"}


def test_a_heartbeat_keeps_the_lease(database: Database, now: datetime) -> None:
    create(database, now, [1])
    (partition_id,) = sent(database, now)
    claim = claimed(database, partition_id, now)
    for beat in range(1, 5):
        leases.heartbeat(database, claim, LEASE, now + timedelta(seconds=20 * beat), done=99)
    later = now + timedelta(seconds=100)
    assert leases.claim(database, partition_id, "other", LEASE, later) is None
    commit(database, claim, {}, later)


def test_of_many_threads_one_claims(database: Database, now: datetime) -> None:
    create(database, now, [3])
    for partition_id in sent(database, now):
        barrier = threading.Barrier(6)

        def claim(owner: int, partition: str = partition_id, start: threading.Barrier = barrier) -> Any:
            start.wait()
            return leases.claim(database, partition, str(owner), LEASE, now)

        with ThreadPoolExecutor(6) as pool:
            claims = [claim for claim in pool.map(claim, range(6)) if claim is not None]
        assert len(claims) == 1
        assert claims[0].fencing_token == 1


def test_partitions_that_end_together_release_the_next_stage_once(database: Database, now: datetime) -> None:
    for _ in range(5):
        job = create(database, now, [4, 1])
        claims = [claimed(database, partition_id, now) for partition_id in sent(database, now)]
        barrier = threading.Barrier(len(claims))

        def end(claim: Claim, start: threading.Barrier = barrier) -> None:
            start.wait()
            commit(database, claim, {}, now)

        with ThreadPoolExecutor(len(claims)) as pool:
            [*pool.map(end, claims)]
        (last,) = sent(database, now)
        commit(database, claimed(database, last, now), {}, now)
        assert get(database, job).state == "succeeded"


def test_a_failure_is_tried_again_later_and_a_poison_partition_ends_the_job(
    database: Database, now: datetime
) -> None:
    job = create(database, now, [2, 1], max_attempts=2)
    poison, sound = sent(database, now)
    bystander = claimed(database, sound, now)
    leases.fail(database, claimed(database, poison, now), "out of memory", now)
    assert sent(database, now) == []
    assert leases.claim(database, poison, "eager", LEASE, now) is None
    later = now + timedelta(seconds=1)
    assert sent(database, later) == [poison]
    leases.fail(database, claimed(database, poison, later), "out of memory", later)
    failed = get(database, job)
    assert failed.state == "failed"
    assert failed.error == "Partition 0 of stage stage0 failed 2 times: out of memory"
    assert failed.finished_at == later
    with pytest.raises(LeaseLost):
        leases.heartbeat(database, bystander, LEASE, later)
    with pytest.raises(LeaseLost):
        commit(database, bystander, {}, later)
    assert leases.claim(database, poison, "again", LEASE, later + timedelta(days=1)) is None


def test_cancelling_takes_the_leases(database: Database, now: datetime) -> None:
    job = create(database, now)
    first, second = sent(database, now)
    claim = claimed(database, first, now)
    with database.write() as session:
        assert jobs.cancel(session, job.id, now).state == "cancelled"
        assert jobs.cancel(session, job.id, now + timedelta(seconds=1)).finished_at == now
    with pytest.raises(LeaseLost):
        commit(database, claim, {}, now)
    assert leases.claim(database, second, "worker", LEASE, now) is None
    assert reconciler.reconcile(database, now + timedelta(days=1), 60) == reconciler.Report(0, 0, 0)


def test_a_partition_given_back_is_due_at_once_and_uncounted(database: Database, now: datetime) -> None:
    job = create(database, now, [1], max_attempts=1)
    (partition_id,) = sent(database, now)
    claim = claimed(database, partition_id, now)
    leases.heartbeat(database, claim, LEASE, now, done=4)
    leases.release(database, claim, now)
    assert get(database, job).progress[0].done == 0
    with pytest.raises(LeaseLost):
        leases.release(database, claim, now)
    with pytest.raises(LeaseLost):
        commit(database, claim, {}, now)
    assert sent(database, now) == [partition_id]
    again = claimed(database, partition_id, now)
    assert (again.attempt, again.fencing_token) == (1, 2)
    commit(database, again, {}, now)
    assert get(database, job).state == "succeeded"


def test_an_unknown_partition_is_not_claimed(database: Database, now: datetime) -> None:
    assert leases.claim(database, "job-none/0/0", "worker", LEASE, now) is None


def test_a_message_waits_in_the_outbox_until_it_was_sent(database: Database, now: datetime) -> None:
    create(database, now, [3])
    seen: list[str] = []

    def broken(_task: str, arguments: list[Any]) -> None:
        if len(seen) == 1:
            raise ConnectionError("the broker is gone")
        seen.append(arguments[0])

    with pytest.raises(ConnectionError):
        outbox.drain(database, broken, now)
    assert len(seen) == 1
    rest = sent(database, now)
    assert len(rest) == 2
    assert set(rest).isdisjoint(seen)
    assert sent(database, now) == []


def test_a_message_asked_for_again_while_it_is_sent_is_sent_again(database: Database, now: datetime) -> None:
    create(database, now, [1])

    def send(task: str, arguments: list[Any]) -> None:
        with database.write() as session:
            outbox.enqueue(session, task, [arguments], now)

    assert outbox.drain(database, send, now) == 1
    assert len(sent(database, now)) == 1


@pytest.mark.parametrize("attempts", [1, 2])
def test_an_expired_lease_is_due_again_or_buried(database: Database, now: datetime, attempts: int) -> None:
    job = create(database, now, [1], max_attempts=2)
    time = now
    for _ in range(attempts):
        (partition_id,) = sent(database, time)
        claimed(database, partition_id, time, "worker-7")
        assert reconciler.reconcile(database, time + timedelta(seconds=LEASE - 1), 600).expired == 0
        time += timedelta(seconds=LEASE)
        report = reconciler.reconcile(database, time, 600)
        assert report.expired == 1
    assert report.buried == attempts // 2
    found = get(database, job)
    if attempts == 1:
        assert found.state == "running"
        assert sent(database, time) == [partition_id]
    else:
        assert found.state == "failed"
        assert "worker-7" in (found.error or "")
        assert sent(database, time) == []


def test_a_lost_message_is_sent_again_at_growing_intervals(database: Database, now: datetime) -> None:
    create(database, now, [1])

    def resent(after_seconds: float) -> int:
        return reconciler.reconcile(database, now + timedelta(seconds=after_seconds), 10).resent

    assert resent(11) == 1
    assert len(sent(database, now + timedelta(seconds=11))) == 1  # it had never left: still one message
    assert [resent(after) for after in (20, 22, 30, 31)] == [0, 0, 0, 1]
    assert len(sent(database, now + timedelta(seconds=31))) == 1
    assert [resent(after) for after in (60, 70, 71)] == [0, 0, 1]


def test_retries_wait_longer_each_time() -> None:
    assert [retry_seconds(attempt) for attempt in (1, 2, 3, 20)] == [1.0, 2.0, 4.0, 300.0]
