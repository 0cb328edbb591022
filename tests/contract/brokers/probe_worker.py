"""A worker process with the platform's own Celery application, whose one task notes what it does.

``python -m tests.contract.brokers.probe_worker FOLDER QUEUES URL VISIBILITY_TIMEOUT_SECONDS``. It appends the
id of each message to FOLDER/begun, and to FOLDER/ended. One whose id begins with ``hold`` ends only once
FOLDER/go exists.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from celery import Celery, signals

from bedplate_store.outbox import WORK_TASK
from bedplate_workers.__main__ import _celery_arguments
from bedplate_workers.app import create_app
from bedplate_workers.broker import check_queues


def main(folder: Path, queues: str, url: str, visibility_timeout_seconds: float) -> None:
    app = create_app(url, visibility_timeout_seconds=visibility_timeout_seconds)
    check_queues(app)
    register(app, folder)

    def ready(**_sender: object) -> None:
        note(folder / "ready", "")

    signals.worker_ready.connect(ready, weak=False)
    app.worker_main(_celery_arguments(queues, "WARNING"))


def register(app: Celery, folder: Path) -> None:
    @app.task(name=WORK_TASK)  # type: ignore[untyped-decorator]  # celery ships no types
    def work(message: str) -> None:
        note(folder / "begun", message)
        while message.startswith("hold") and not (folder / "go").exists():
            time.sleep(0.02)
        note(folder / "ended", message)


def note(path: Path, message: str) -> None:
    with path.open("a") as file:
        file.write(f"{message} {os.getpid()}\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3], float(sys.argv[4]))
