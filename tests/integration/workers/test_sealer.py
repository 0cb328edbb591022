"""The sealer beside an inference service, as a process that is started and told to stop."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import select
from tests.integration.places import Places
from tests.waiting import wait_until

from bedplate_store.database import Database
from bedplate_store.impressions import ImpressionLog, ImpressionRecord
from bedplate_store.tables.records import LoggedRequestRow
from bedplate_workers.alive import main as alive
from bedplate_workers.clocks import system_clock
from bedplate_workers.sealer import seal_the_rest

PATIENCE_SECONDS = 60.0
NOWHERE = {"BEDPLATE_OBJECTS_URL": "s3://bucket?endpoint=http://127.0.0.1:9", "BEDPLATE_S3_ATTEMPTS": "1"}
Start = Callable[[Mapping[str, str]], subprocess.Popen[bytes]]


@pytest.fixture
def database(places: Places) -> Iterator[Database]:
    database = Database(places.store_url)
    yield database
    database.close()


@pytest.fixture
def log(tmp_path: Path, places: Places, database: Database) -> ImpressionLog:
    """As the inference service appends to it."""
    return ImpressionLog(tmp_path / "spool", places.objects.open(), database)


@pytest.fixture
def start(tmp_path: Path, places: Places) -> Iterator[Start]:
    started: list[subprocess.Popen[bytes]] = []

    def run(more: Mapping[str, str]) -> subprocess.Popen[bytes]:
        own = {
            **places.environment(),
            "BEDPLATE_BROKER_URL": f"filesystem://{tmp_path}/broker",
            "BEDPLATE_CACHE_DIR": str(tmp_path / "cache"),
            "BEDPLATE_SPOOL_DIR": str(tmp_path / "spool"),
            "BEDPLATE_HEARTBEAT_FILE": str(tmp_path / "heartbeat"),
            **more,
        }
        command = [sys.executable, "-m", "bedplate_workers.sealer"]
        started.append(subprocess.Popen(command, env=own))
        return started[-1]

    yield run
    for process in started:
        process.kill()
        process.wait()


def record(number: int) -> ImpressionRecord:
    return ImpressionRecord(
        request_id=f"request-{number}",
        user="u",
        surface="feed",
        served_at_us=number,
        expert=None,
        items=["i"],
        scores=None,
        tae={"core@1": np.ones((1, 4), np.float16)},
        predictions={"core@1": np.zeros(1, np.float32)},
    )


def logged(database: Database) -> list[str]:
    with database.read() as session:
        return sorted(session.scalars(select(LoggedRequestRow.request_id)))


def test_it_seals_while_it_runs_and_the_rest_when_told_to_stop(
    tmp_path: Path, database: Database, log: ImpressionLog, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    log.append(record(1))
    process = start({})
    wait_until(lambda: logged(database) == ["request-1"])
    monkeypatch.setenv("BEDPLATE_HEARTBEAT_FILE", str(tmp_path / "heartbeat"))
    assert alive(["--max-age-seconds", "60"]) == 0
    # Too young and too small to be sealed by itself.
    log.append(record(2))
    process.send_signal(signal.SIGTERM)
    assert process.wait(PATIENCE_SECONDS) == 0
    assert logged(database) == ["request-1", "request-2"]
    assert list((tmp_path / "spool").glob("*-*")) == []


def test_what_cannot_be_stored_stays_in_the_spool(
    tmp_path: Path, database: Database, log: ImpressionLog, start: Start
) -> None:
    process = start(NOWHERE)
    wait_until((tmp_path / "heartbeat").exists)
    log.append(record(1))
    process.send_signal(signal.SIGTERM)
    assert process.wait(PATIENCE_SECONDS) == 1
    assert logged(database) == []
    assert seal_the_rest(lambda: log.seal(system_clock()).requests)
    assert logged(database) == ["request-1"]
