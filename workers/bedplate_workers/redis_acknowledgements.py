"""Acknowledgements that a Redis broker did not take."""

from __future__ import annotations

from kombu.transport import redis, virtual


class RedisQoS(redis.QoS):
    """Counts a message as given back also where Redis could not be told so.

    kombu goes on counting it, and a channel that may hold one message then asks for no other, neither over
    this connection nor over the next: a worker whose acknowledgement met a dead Redis would wait for ever.
    Redis gives the message to somebody when its visibility time-out has passed; the ledger knows what is
    done.
    """

    def ack(self, delivery_tag: str) -> None:
        try:
            super().ack(delivery_tag)  # type: ignore[no-untyped-call]  # kombu is typed in part
        finally:
            virtual.QoS.ack(self, delivery_tag)  # type: ignore[no-untyped-call]

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:
        try:
            super().reject(delivery_tag, requeue)  # type: ignore[no-untyped-call]
        finally:
            virtual.QoS.ack(self, delivery_tag)  # type: ignore[no-untyped-call]


def mend_acknowledgements() -> None:
    """Have all of kombu's Redis channels count so; Sentinel's inherits it, and no setting does it."""
    redis.Channel.QoS = RedisQoS
