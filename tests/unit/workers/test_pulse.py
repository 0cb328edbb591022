"""When a worker is well, and what the probe says about it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from bedplate_workers import alive
from bedplate_workers.pulse import BEAT_SECONDS, STALLED_SECONDS, HeartbeatFile, WorkerPulse


class Clock:
    def __init__(self) -> None:
        self.seconds = 100.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def pulse(clock: Clock) -> WorkerPulse:
    return WorkerPulse(HeartbeatFile(None), clock)


def test_a_worker_is_well_while_its_loop_comes_round(pulse: WorkerPulse, clock: Clock) -> None:
    pulse.tick()
    clock.seconds += STALLED_SECONDS - 1
    assert pulse.well()
    pulse.tick()
    clock.seconds += STALLED_SECONDS - 1
    assert pulse.well()
    clock.seconds += 1
    assert not pulse.well()


def test_a_worker_is_well_at_a_partition_however_long_and_has_time_to_come_round_after_it(
    pulse: WorkerPulse, clock: Clock
) -> None:
    pulse.tick()
    with pulse.working():
        clock.seconds += 100 * STALLED_SECONDS
        assert pulse.well()
    assert pulse.well()
    clock.seconds += STALLED_SECONDS
    assert not pulse.well()


def test_a_worker_is_well_while_the_broker_is_away(pulse: WorkerPulse, clock: Clock) -> None:
    assert pulse.well(), "before the first connection"
    pulse.tick()
    pulse.disconnected()
    clock.seconds += 100 * STALLED_SECONDS
    assert pulse.well()
    with pulse.working():
        pass
    clock.seconds += STALLED_SECONDS
    assert pulse.well(), "a partition that ended while the broker was away starts no clock"


def test_the_file_is_touched_now_and_then(tmp_path: Path, clock: Clock) -> None:
    path = tmp_path / "heartbeat"
    file = HeartbeatFile(path, clock)
    file.beat()
    os.utime(path, (1, 1))
    clock.seconds += BEAT_SECONDS / 2
    file.beat()
    assert path.stat().st_mtime == 1
    clock.seconds += BEAT_SECONDS / 2
    file.beat()
    assert path.stat().st_mtime > 1


@pytest.mark.parametrize(
    ("age_seconds", "status", "says"),
    [(1, 0, ""), (59, 0, ""), (61, 1, "61 s old; 60 s are allowed"), (None, 1, "has not begun to work")],
)
def test_the_probe_goes_by_the_files_age(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    age_seconds: float | None,
    status: int,
    says: str,
) -> None:
    path = tmp_path / "heartbeat"
    if age_seconds is not None:
        path.touch()
        monkeypatch.setattr(alive.time, "time", lambda: path.stat().st_mtime + age_seconds)
    monkeypatch.setenv(alive.VARIABLE, str(path))
    assert alive.main(["--max-age-seconds", "60"]) == status
    assert says in capsys.readouterr().err


def test_the_probe_says_which_setting_it_lacks(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv(alive.VARIABLE, raising=False)
    assert alive.main([]) == 2
    assert alive.VARIABLE in capsys.readouterr().err


def test_the_probe_is_cheap() -> None:
    """Kubernetes runs it every few seconds in every pod."""
    code = (
        "import sys, bedplate_workers.alive\n"
        "print([name for name in ('celery', 'kombu', 'torch', 'sqlalchemy', 'pydantic', 'numpy', 'bedplate')"
        " if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
