"""What waits in a broker, taken out of it as a worker would."""

from __future__ import annotations

from queue import Empty

from celery import Celery


def take_all(app: Celery, name: str) -> list[str]:
    """The partition ids in a queue of an application that :func:`bedplate_workers.app.create_app` made."""
    (queue,) = [each for each in app.conf.task_queues if each.name == name]
    taken: list[str] = []
    with app.connection_for_read() as connection:
        box = connection.SimpleQueue(queue)
        while True:
            try:
                message = box.get_nowait()
            except Empty:
                return taken
            taken.append(message.payload[0][0])
            message.ack()
