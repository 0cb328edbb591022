"""Messages arrive whole, once, in the queue they were sent to; and what a folder needs to be a broker."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest
from tests.engines.messages import take_all

from bedplate_workers.app import create_app, send_task
from bedplate_workers.broker import check_queues, sweep_processed


def test_messages_reach_the_queue_they_were_sent_to(broker_url: str) -> None:
    app = create_app(broker_url)
    check_queues(app)
    for number in range(4):
        send_task(app, "bedplate.work", [f"p{number}"], "gpu" if number % 2 else "cpu")
    assert take_all(app, "gpu") == ["p1", "p3"]
    assert take_all(app, "cpu") == ["p0", "p2"]
    assert take_all(app, "cpu") == []


def test_a_reader_never_meets_half_a_message(broker_url: str) -> None:
    app = create_app(broker_url)
    check_queues(app)
    count = 300
    sender = threading.Thread(
        target=lambda: [send_task(app, "bedplate.work", [str(number)], "cpu") for number in range(count)]
    )
    sender.start()
    reader = create_app(broker_url)
    taken: list[str] = []
    while sender.is_alive() or len(taken) < count:
        taken += take_all(reader, "cpu")
    sender.join()
    assert sorted(map(int, taken)) == list(range(count))


def test_messages_handed_out_are_swept_after_a_while(tmp_path: Path) -> None:
    url = f"filesystem://{tmp_path}"
    app = create_app(url)
    send_task(app, "bedplate.work", ["p"], "cpu")
    take_all(app, "cpu")
    assert sweep_processed(url, older_than_seconds=3600) == 0
    assert sweep_processed(url, older_than_seconds=-1) == 1
    assert os.listdir(tmp_path / "processed") == []


@pytest.mark.parametrize("url", ["redis://127.0.0.1:1/0", "amqp://127.0.0.1:1//"])
def test_other_brokers_are_taken_as_they_are(url: str) -> None:
    assert create_app(url).conf.broker_url == url
    assert sweep_processed(url, older_than_seconds=0) == 0
