"""What every broker does with the platform's messages, through real workers; and what each does on top."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.engines import Absent, RabbitMQ, Redis

from bedplate.errors import Conflict, InvalidRequest
from bedplate_services.dispatch import celery_sender
from bedplate_store.outbox import WORK_TASK
from bedplate_workers.app import create_app
from bedplate_workers.broker import check_queues

from .conftest import Place


def test_a_message_is_done_once_by_a_worker_of_its_queue(place: Place) -> None:
    place.send("for-the-gpu", queue="gpu")
    place.send("first", "second", "third")
    worker = place.worker("cpu")
    place.wait_until(lambda: len(worker.ended()) == 3)
    assert worker.begun() == worker.ended() == ["first", "second", "third"], "in the order they were sent"
    other = place.worker("gpu")
    place.wait_until(lambda: other.ended() == ["for-the-gpu"])
    assert len(worker.begun()) == 3


def test_a_busy_worker_holds_no_second_message(place: Place) -> None:
    """Prefetch 1 and late acknowledgement: what waits is there for others."""
    busy = place.worker()
    place.send("hold", *(f"short-{number}" for number in range(4)))
    place.wait_until(lambda: busy.begun() == ["hold"])
    free = place.worker()
    place.wait_until(lambda: len(free.ended()) == 4)
    assert free.ended() == [f"short-{number}" for number in range(4)]
    assert busy.begun() == ["hold"]
    busy.let_go()
    place.wait_until(lambda: busy.ended() == ["hold"])


def test_the_message_of_a_killed_worker(place: Place) -> None:
    """Redis and RabbitMQ hand it out again. A folder has lost it; the ledger sends it again (tests/e2e)."""
    seconds = 2.0
    killed = place.worker(visibility_timeout_seconds=seconds)
    place.send("hold-until-killed", "next")
    place.wait_until(lambda: killed.begun() == ["hold-until-killed"])
    killed.kill()
    other = place.worker(visibility_timeout_seconds=seconds)
    other.let_go()
    expected = {"next", "hold-until-killed"} if place.redelivers else {"next"}
    place.wait_until(lambda: set(other.ended()) >= expected)
    assert sorted(other.ended()) == sorted(expected)


def test_an_ended_message_does_not_come_back(place: Place) -> None:
    first = place.worker(visibility_timeout_seconds=1)
    place.send("one")
    place.wait_until(lambda: first.ended() == ["one"])
    first.running.terminate()
    first.running.wait()
    second = place.worker(visibility_timeout_seconds=1)
    place.send("two")
    place.wait_until(lambda: second.ended() == ["two"])


@pytest.mark.parametrize("broker_url", ["redis"], indirect=True)
def test_redis_hands_out_again_what_outlasts_the_visibility_timeout(place: Place) -> None:
    """So a partition needs its lease: the ledger sends the second worker away (tests/integration/workers)."""
    slow = place.worker(visibility_timeout_seconds=1)
    place.send("hold")
    place.wait_until(lambda: slow.begun() == ["hold"])
    other = place.worker(visibility_timeout_seconds=1)
    place.wait_until(lambda: other.begun() == ["hold"])
    other.let_go()
    slow.let_go()
    place.wait_until(lambda: slow.ended() == other.ended() == ["hold"])
    place.send("after")
    place.wait_until(lambda: "after" in slow.ended() + other.ended())


@pytest.fixture(scope="module", params=[Redis, RabbitMQ], ids=["redis", "rabbitmq"])
def private(request: pytest.FixtureRequest) -> Iterator[Redis | RabbitMQ]:
    """A broker of our own; RabbitMQ closes a channel that does not acknowledge within a second."""
    options: dict[str, Any] = {"acknowledge_seconds": 1} if request.param is RabbitMQ else {}
    try:
        with request.param(private=True, **options) as broker:
            yield broker
    except Absent as absent:
        pytest.skip(str(absent))


@pytest.fixture
def private_place(private: Redis | RabbitMQ, tmp_path: Path) -> Iterator[Place]:
    with private.database() if isinstance(private, Redis) else private.virtual_host() as url:
        made = Place(url, redelivers=True, folder=tmp_path)
        yield made
        made.close()


@pytest.mark.parametrize("private", [RabbitMQ], ids=["rabbitmq"], indirect=True, scope="module")
def test_a_worker_outlives_a_broker_that_loses_patience(private: RabbitMQ, private_place: Place) -> None:
    """RabbitMQ's consumer time-out (by default 30 minutes) ends the channel, not the worker.

    The message comes back once the worker notices; the ledger tells whether it is done.
    """
    worker = private_place.worker()
    private_place.send("hold")
    private_place.wait_until(lambda: worker.begun() == ["hold"])
    private_place.wait_until(lambda: "timed out waiting for delivery acknowledgement" in private.log())
    worker.let_go()
    private_place.wait_until(lambda: worker.ended() == ["hold", "hold"])
    private_place.send("after")
    private_place.wait_until(lambda: worker.ended()[-1] == "after")
    assert worker.running.poll() is None


def test_a_broker_that_was_away_and_lost_everything_is_used_again(
    private: Redis | RabbitMQ, private_place: Place
) -> None:
    worker = private_place.worker()
    send = celery_sender(private_place.url)
    send(WORK_TASK, ["before"], "cpu")
    private_place.wait_until(lambda: worker.ended() == ["before"])
    private.kill()
    with pytest.raises(Exception, match=r"refused|closed|reset|forcibly"):
        send(WORK_TASK, ["lost"], "cpu")
    private.empty()
    private.restart()
    private_place.send("hold-after")  # by a reconciler, which makes the queue if no worker has yet
    private_place.wait_until(lambda: "hold-after" in worker.begun())
    worker.let_go()
    send(WORK_TASK, ["by-a-service"], "cpu")
    private_place.wait_until(lambda: worker.ended()[-1:] == ["by-a-service"])
    assert worker.running.poll() is None


def test_a_queue_of_another_type_is_told_with_the_mend(rabbitmq: RabbitMQ) -> None:
    with rabbitmq.virtual_host() as url:
        check_queues(create_app(url, queue_type="classic"))
        with pytest.raises(Conflict, match="BEDPLATE_QUEUE_TYPE"):
            check_queues(create_app(url, queue_type="quorum"))
        check_queues(create_app(url, queue_type="classic"))


def test_a_broker_that_is_away_is_waited_for() -> None:
    check_queues(create_app("redis://127.0.0.1:1/0"))


def test_a_url_of_no_broker_is_told_with_the_forms() -> None:
    with pytest.raises(InvalidRequest, match="redis://"):
        create_app("http://host:80/")
