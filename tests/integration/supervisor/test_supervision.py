"""Real child processes: what is started again, what is given up, what dies with the supervisor."""

from __future__ import annotations

import json
import os
import platform
import re
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
from tests.waiting import wait_until

from bedplate_services.supervisor.children import ChildFailed, ChildSpecification, RestartPolicy
from bedplate_services.supervisor.supervision import Supervision
from bedplate_services.supervisor.time_slices import SLICE_NANOSECONDS

PATIENCE_SECONDS = 20.0


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # An orphan that nobody has reaped yet is a zombie: dead, though its number is still taken.
    return not _is_zombie(pid)


def _is_zombie(pid: int) -> bool:
    status = subprocess.run(
        ["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False
    )
    return status.stdout.strip()[:1] in ("Z", "")


def slice_of(pid: int) -> int | None:
    """The slice in nanoseconds that a process has from Linux; None where the kernel does not say."""
    file = Path(f"/proc/{pid}/sched")
    found = re.search(r"^se\.slice\s+:\s+(\d+)", file.read_text(), re.MULTILINE) if file.exists() else None
    return int(found[1]) if found else None


@pytest.fixture
def modules(tmp_path: Path) -> Mapping[str, str]:
    """The environment in which three small modules can be run by name."""
    folder = tmp_path / "modules"
    folder.mkdir()
    (folder / "sleeper.py").write_text("import time\nprint('asleep')\ntime.sleep(600)\n")
    (folder / "crasher.py").write_text("print('the reason')\nraise SystemExit(3)\n")
    (folder / "stubborn.py").write_text(
        "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nprint('deaf')\ntime.sleep(600)\n"
    )
    path = os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])
    return {**os.environ, "PYTHONPATH": path}


@pytest.fixture
def start(tmp_path: Path, modules: Mapping[str, str]) -> Iterator[Callable[..., Supervision]]:
    started: list[Supervision] = []

    def start_children(*names: str, report: Callable[[str], None] = lambda _message: None) -> Supervision:
        supervision = Supervision(
            [ChildSpecification(name, name) for name in names],
            environment=modules,
            logs=tmp_path,
            policy=lambda: RestartPolicy(crashes_max=3, backoff_seconds=0.01),
            report=report,
        )
        started.append(supervision)
        supervision.start()
        return supervision

    yield start_children
    for supervision in started:
        supervision.stop(grace_seconds=5)


def test_a_killed_child_is_started_again(start: Callable[..., Supervision]) -> None:
    reports: list[str] = []
    supervision = start("sleeper", report=reports.append)
    first = supervision.pids()["sleeper"]
    os.kill(first, signal.SIGKILL)
    wait_until(lambda: supervision.pids().get("sleeper", first) != first)
    assert reports == ["sleeper was killed by SIGKILL; starting it again in 0.01 s"]


def test_a_child_that_keeps_crashing_is_given_up_with_the_end_of_its_log(
    start: Callable[..., Supervision],
) -> None:
    supervision = start("sleeper", "crasher")
    with pytest.raises(ChildFailed, match=r"crasher ended with status 3, 3 times(.|\n)*the reason") as caught:
        supervision.wait(PATIENCE_SECONDS)
    assert caught.value.context == {"child": "crasher"}
    sleeper = supervision.pids()["sleeper"]
    supervision.stop()
    assert not alive(sleeper)


def test_a_child_that_is_to_stand_back_does_so_among_all_sessions(
    tmp_path: Path, modules: Mapping[str, str]
) -> None:
    supervision = Supervision(
        [ChildSpecification("sleeper", "sleeper", niceness=7), ChildSpecification("equal", "sleeper")],
        environment=modules,
        logs=tmp_path,
    )
    supervision.start()
    try:
        wait_until(
            lambda: all("asleep" in (tmp_path / f"{name}.log").read_text() for name in ("sleeper", "equal"))
        )
        pids = supervision.pids()
        own = os.getpriority(os.PRIO_PROCESS, 0)
        assert os.getpriority(os.PRIO_PROCESS, pids["sleeper"]) == min(own + 7, 19)
        assert os.getpriority(os.PRIO_PROCESS, pids["equal"]) == own
        if sys.platform == "linux":
            assert os.sched_getscheduler(pids["sleeper"]) == os.SCHED_BATCH
            assert os.sched_getscheduler(pids["equal"]) == os.sched_getscheduler(0)
            if tuple(int(part) for part in platform.release().split(".")[:2]) >= (6, 12):
                assert slice_of(pids["equal"]) in (None, SLICE_NANOSECONDS)
                assert slice_of(pids["sleeper"]) in (None, slice_of(os.getpid()))
        for name, niceness in (("sleeper", 7), ("equal", 0)):
            group = Path(f"/proc/{pids[name]}/autogroup")  # where Linux shares out among sessions first
            if group.exists():
                assert group.read_text().rstrip().endswith(f" nice {niceness}")
    finally:
        supervision.stop(grace_seconds=5)


def test_stop_kills_only_what_does_not_listen(tmp_path: Path, start: Callable[..., Supervision]) -> None:
    supervision = start("sleeper", "stubborn")
    wait_until(lambda: "deaf" in (tmp_path / "stubborn.log").read_text())
    pids = supervision.pids()
    assert supervision.stop(grace_seconds=0.3) == ["stubborn"]
    assert not any(alive(pid) for pid in pids.values())


def test_children_die_with_a_supervisor_that_is_killed(tmp_path: Path, modules: Mapping[str, str]) -> None:
    script = textwrap.dedent(
        """
        import json, os, pathlib, sys, time
        from bedplate_services.supervisor.children import ChildSpecification
        from bedplate_services.supervisor.supervision import Supervision

        logs = pathlib.Path(sys.argv[1])
        children = [ChildSpecification("sleeper", "sleeper"), ChildSpecification("stubborn", "stubborn")]
        supervision = Supervision(children, environment=os.environ, logs=logs)
        supervision.start()
        print(json.dumps(supervision.pids()), flush=True)
        time.sleep(600)
        """
    )
    supervisor = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)], env=modules, stdout=subprocess.PIPE, text=True
    )
    assert supervisor.stdout is not None
    pids = json.loads(supervisor.stdout.readline())
    wait_until(lambda: "deaf" in (tmp_path / "stubborn.log").read_text())
    wait_until(lambda: "asleep" in (tmp_path / "sleeper.log").read_text())
    supervisor.kill()
    supervisor.wait()
    supervisor.stdout.close()
    wait_until(lambda: not any(alive(pid) for pid in pids.values()))
