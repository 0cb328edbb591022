"""A worker that cannot tell Redis that it has done its message asks for the next one all the same."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import pytest
from kombu.transport import redis, virtual

from bedplate_workers.broker import broker_configuration


class DeadRedis:
    """As much of a channel as acknowledging needs; its server is gone."""

    unacked_key = "unacked"
    unacked_index_key = "unacked_index"

    def conn_or_acquire(self, client: Any = None) -> AbstractContextManager[Any]:
        raise ConnectionError("Connection refused.")


@pytest.mark.parametrize(
    "give_back",
    [
        lambda qos: qos.ack("tag"),
        lambda qos: qos.reject("tag"),
        lambda qos: qos.reject("tag", requeue=True),
    ],
    ids=["ack", "reject", "requeue"],
)
@pytest.mark.parametrize("channel", [redis.Channel, redis.SentinelChannel])
def test_a_failed_acknowledgement_holds_no_place(
    channel: type[redis.Channel], give_back: Callable[[virtual.QoS], None]
) -> None:
    broker_configuration("redis://nowhere", queue_type="quorum", visibility_timeout_seconds=3600)
    qos = channel.QoS(DeadRedis(), 1)
    qos.restore_at_shutdown = False
    virtual.QoS.append(qos, object(), "tag")
    assert not qos.can_consume()
    with pytest.raises(ConnectionError):
        give_back(qos)
    assert qos.can_consume()
