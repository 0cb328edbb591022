"""Messages leave after the commit, to the right queue; a broker that is away delays them and nothing else."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from tests.engines.messages import take_all

from bedplate_services.composition import build_dispatcher
from bedplate_services.dispatch import CeleryDispatcher, NullDispatcher
from bedplate_store import jobs, outbox
from bedplate_store.jobs import PartitionSpec, Stage
from bedplate_workers import app as workers
from bedplate_workers.broker import check_queues

from .conftest import NOW, World


class Broker:
    """Collects what is sent; refuses while it is down."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, str, str]] = []
        self.down = False

    def send(self, name: str, arguments: list[Any], queue: str) -> None:
        if self.down:
            raise ConnectionRefusedError("no broker")
        self.sent.append((name, str(arguments[0]).partition("/")[2], queue))


@pytest.fixture
def broker(world: World) -> Broker:
    """Two jobs wait in the outbox."""
    with world.platform.store.write() as session:
        for kind in ("embed", "compact"):
            stages = [Stage("only", [PartitionSpec({}, 1)])]
            jobs.create(session, kind=kind, subject=kind, team="core-team", params={}, stages=stages, now=NOW)
    return Broker()


def test_each_kind_has_its_queue(world: World, broker: Broker) -> None:
    dispatcher = CeleryDispatcher(world.platform.store, broker.send)
    dispatcher.drain(NOW)
    assert broker.sent == [("bedplate.work", "0/0", "gpu"), ("bedplate.work", "0/0", "cpu")]
    dispatcher.drain(NOW)
    assert len(broker.sent) == 2


def test_a_broker_that_is_away_loses_nothing(world: World, broker: Broker) -> None:
    dispatcher = CeleryDispatcher(world.platform.store, broker.send)
    broker.down = True
    dispatcher.drain(NOW)
    assert broker.sent == []
    left: list[str] = []
    outbox.drain(world.platform.store, lambda task, _: left.append(task), NOW + timedelta(seconds=1))
    assert left == ["bedplate.work"] * 2


@pytest.mark.usefixtures("broker")
@pytest.mark.parametrize("broker_url", ["redis", "rabbitmq"], indirect=True)
def test_a_broker_has_the_messages_once_they_have_left_the_outbox(world: World, broker_url: str) -> None:
    app = workers.create_app(broker_url)
    check_queues(app)  # as a worker does, before there is anything to send
    dispatcher = build_dispatcher(world.platform.store, broker_url)
    dispatcher.drain(NOW)
    dispatcher.drain(NOW)
    assert [len(take_all(app, queue)) for queue in ("cpu", "gpu")] == [1, 1]
    app.close()


@pytest.mark.usefixtures("broker")
@pytest.mark.parametrize("url", ["redis://127.0.0.1:1/0", "amqp://127.0.0.1:1//"])
def test_a_broker_where_nobody_listens_loses_nothing(world: World, url: str) -> None:
    build_dispatcher(world.platform.store, url).drain(NOW)
    left: list[str] = []
    outbox.drain(world.platform.store, lambda task, _: left.append(task), NOW + timedelta(seconds=1))
    assert left == ["bedplate.work"] * 2


def test_a_folder_is_left_to_the_reconciler(world: World, tmp_path: Any) -> None:
    store = world.platform.store
    assert isinstance(build_dispatcher(store, f"filesystem://{tmp_path}/broker"), NullDispatcher)
    assert isinstance(build_dispatcher(store, None), NullDispatcher)
    assert isinstance(build_dispatcher(store, "memory://"), CeleryDispatcher)
