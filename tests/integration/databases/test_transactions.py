"""What becomes of a transaction that meets others, takes too long, or loses its server."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, OperationalError
from tests.engines.postgresql import SERIALISATION_FAILURE

from bedplate.databases import Limits
from bedplate.databases.retries import ATTEMPTS
from bedplate.errors import BedplateError, Unavailable
from bedplate_services import problems
from bedplate_store.database import Database, WriteSession
from bedplate_store.tables.records import SequenceRow

from .conftest import NewDatabase

postgresql = pytest.mark.parametrize("new_database", ["postgresql"], indirect=True)


@pytest.fixture
def retries() -> list[tuple[str, str]]:
    return []


@pytest.fixture
def open_store(
    new_database: NewDatabase, retries: list[tuple[str, str]]
) -> Iterator[Callable[..., Database]]:
    """``open_store(**limits)``: the same migrated database, as processes with such limits see it."""
    url, opened = new_database(), list[Database]()

    def open_(**limits: Any) -> Database:
        opened.append(Database(url, Limits(**limits), lambda *told: retries.append(told)))
        return opened[-1]

    open_().migrate()
    yield open_
    for database in opened:
        database.close()


def count(session: WriteSession, name: str) -> None:
    row = session.get_one(SequenceRow, name, with_for_update=True, populate_existing=True)
    row.value += 1
    session.flush()


def value(database: Database, name: str) -> int:
    with database.read() as session:
        return session.get_one(SequenceRow, name).value


@postgresql
def test_a_deadlock_costs_nothing_but_time(
    open_store: Callable[..., Database], retries: list[tuple[str, str]]
) -> None:
    store, both_hold_one = open_store(), threading.Barrier(2)

    def work(first: str, second: str) -> Callable[[WriteSession], None]:
        tried = threading.Event()

        def count_both(session: WriteSession) -> None:
            count(session, first)
            if not tried.is_set():
                tried.set()
                both_hold_one.wait(30)
            count(session, second)

        return count_both

    with ThreadPoolExecutor(2) as pool:
        for done in [
            pool.submit(store.transact, work("event", "outcome")),
            pool.submit(store.transact, work("outcome", "event")),
        ]:
            done.result(60)
    assert (value(store, "event"), value(store, "outcome")) == (2, 2)
    assert retries == [("store", "deadlock")]


@postgresql
def test_a_transaction_that_cannot_be_put_in_a_row_is_run_again_and_not_for_ever(
    open_store: Callable[..., Database], retries: list[tuple[str, str]]
) -> None:
    store, runs = open_store(), list[int]()

    def fails(times: int) -> Callable[[WriteSession], str]:
        runs.clear()

        def work(session: WriteSession) -> str:
            count(session, "event")
            runs.append(1)
            if len(runs) <= times:
                session.execute(text(SERIALISATION_FAILURE))
            return "done"

        return work

    assert store.transact(fails(2)) == "done"
    assert value(store, "event") == 1, "what gave way left nothing behind"
    assert retries == [("store", "serialisation")] * 2
    with pytest.raises(OperationalError) as given_up:
        store.transact(fails(ATTEMPTS))
    assert len(runs) == ATTEMPTS
    assert "Others were changing the same rows" in told(given_up.value)


def test_other_failures_are_raised_at_once(
    open_store: Callable[..., Database], retries: list[tuple[str, str]]
) -> None:
    runs: list[int] = []

    def work(session: WriteSession) -> None:
        runs.append(1)
        session.execute(text("SELECT * FROM nothing_of_the_kind"))

    with pytest.raises(DBAPIError):
        open_store().transact(work)
    assert (len(runs), retries) == (1, [])


def told(error: Exception) -> str:
    """What a client is told: to come again later, and in words of ours."""
    answer: BedplateError = problems.from_exception(error)
    assert isinstance(answer, Unavailable)
    assert problems.headers_of(answer) == {"retry-after": "1"}
    return answer.detail


@postgresql
def test_a_statement_ends_in_time(open_store: Callable[..., Database]) -> None:
    with pytest.raises(OperationalError) as ended, open_store(statement_seconds=0.1).read() as session:
        session.execute(text("SELECT pg_sleep(60)"))
    assert "BEDPLATE_DATABASE_STATEMENT_SECONDS" in told(ended.value)


@postgresql
def test_a_lock_is_waited_for_and_then_left_to_who_has_it(open_store: Callable[..., Database]) -> None:
    with open_store().write() as holding:
        count(holding, "event")
        with pytest.raises(OperationalError) as left, open_store(lock_seconds=0.1).write() as session:
            count(session, "event")
        assert "BEDPLATE_DATABASE_LOCK_SECONDS" in told(left.value)


@postgresql
def test_the_locks_of_a_frozen_process_are_freed(open_store: Callable[..., Database]) -> None:
    """The frozen one learns of it when it goes on, and what it had written is gone."""
    frozen, other = open_store(idle_in_transaction_seconds=0.2), open_store()
    with pytest.raises(DBAPIError) as late, frozen.write() as session:  # noqa: PT012  # it is all one transaction
        count(session, "event")
        other.transact(lambda again: count(again, "event"))
        count(session, "event")
    assert told(late.value)
    assert value(other, "event") == 1
    frozen.transact(lambda again: count(again, "event"))
    assert value(other, "event") == 2


@postgresql
def test_connections_are_few_and_a_transaction_waits_for_one(open_store: Callable[..., Database]) -> None:
    narrow = open_store(pool_size=1, pool_overflow=0, pool_seconds=0.1)
    with narrow.read(), pytest.raises(Exception, match="QueuePool limit") as none_free, narrow.read():
        pass
    assert told(none_free.value)


@postgresql
def test_a_connection_that_the_server_closed_is_replaced_before_it_is_used(
    open_store: Callable[..., Database],
) -> None:
    store, other = open_store(pool_size=2), open_store()

    def server_processes(database: Database) -> int:
        with database.read() as session:
            return session.scalar(text("SELECT pg_backend_pid()")) or 0

    closed = server_processes(store)
    with other.write() as session:
        session.execute(text("SELECT pg_terminate_backend(:pid, 5000)"), {"pid": closed})
    assert server_processes(store) != closed


@postgresql
def test_a_migration_lets_others_use_a_table_it_cannot_have_yet(
    open_store: Callable[..., Database],
) -> None:
    """It asks for the table again when those who wait behind it have had their turn."""
    store = open_store()
    paused: list[float] = []
    with store.engine.begin() as connection:
        connection.execute(text("UPDATE store_revision SET version_num = '0001'"))
        for table in ("training_sets", "job_partitions", "job_stages", "jobs", "outbox", "outcomes"):
            connection.execute(text(f"DROP TABLE {table}"))
        for table in ("logged_requests", "log_segments", "sequences", "items", "timelines"):
            connection.execute(text(f"DROP TABLE {table}"))
        connection.execute(text("DROP TABLE events"))
    reading = store.engine.connect()
    reading.execute(text("LOCK TABLE store_revision IN SHARE MODE"))

    def reader_ends(seconds: float) -> None:
        paused.append(seconds)
        reading.rollback()

    assert store.migrate(sleep=reader_ends) == "0001"
    assert len(paused) == 1
    assert store.schema_state() == "current"
    reading.close()
