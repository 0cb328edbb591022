"""``bedplate up`` itself: one platform to a directory, clear refusals, nothing left behind."""

from __future__ import annotations

import json
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from bedplate_services.supervisor.children import ChildFailed, RestartPolicy
from bedplate_services.supervisor.data_directory import DirectoryLock
from bedplate_services.supervisor.platform import Platform

PATIENCE_SECONDS = 120.0


def run_up(*options: str) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).parent / "bedplate"), "up", *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False)


def alive(pid: int) -> bool:
    status = subprocess.run(
        ["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False
    )
    return status.stdout.strip()[:1] not in ("Z", "")


def test_a_first_start_makes_what_a_client_needs_and_a_second_up_is_refused(
    tmp_path: Path, up: Callable[..., Any]
) -> None:
    started = up(tmp_path)
    for name in ("admin-token", "client.json", "signing-key"):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600
    known = json.loads((tmp_path / "client.json").read_text())
    assert known["url"] == started.announced["url"]
    answer = httpx.get(f"{known['url']}/v1/whoami", headers={"authorization": f"Bearer {known['token']}"})
    assert answer.json()["role"] == "admin"
    assert httpx.get(f"{known['url']}/v1/foundations").status_code == 401

    refused = run_up("--data", str(tmp_path), "--port", "0")
    assert refused.returncode == 1
    assert "Another platform runs on this data directory" in refused.stderr
    assert known["url"] in refused.stderr

    pids = started.pids()
    started.process.send_signal(signal.SIGINT)
    assert started.process.wait(PATIENCE_SECONDS) == 0
    started.process.communicate()
    assert not any(alive(pid) for pid in pids)


def test_a_port_in_use_is_named_with_the_option_that_helps(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        refused = run_up("--data", str(tmp_path), "--port", str(port), "--inference-port", "0")
    assert refused.returncode == 1
    assert f"127.0.0.1:{port}" in refused.stderr
    assert "--port 0" in refused.stderr


def test_a_child_that_cannot_start_ends_the_platform_with_the_reason(tmp_path: Path) -> None:
    platform = Platform(
        tmp_path,
        environment={"BEDPLATE_LEASE_SECONDS": "soon"},
        policy=lambda: RestartPolicy(crashes_max=1),
    )
    with pytest.raises(ChildFailed, match=r"not started again(.|\n)*lease_seconds"):
        platform.start()
    assert not (tmp_path / "processes.json").exists()
    with DirectoryLock(platform.directory):
        pass
