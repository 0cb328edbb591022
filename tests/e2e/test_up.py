"""``bedplate up`` itself: one platform to a directory, clear refusals, nothing left behind."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx

PATIENCE_SECONDS = 90.0


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

    again = up(tmp_path)
    assert json.loads((tmp_path / "client.json").read_text())["token"] == known["token"]
    assert again.announced["data"] == str(tmp_path)


def test_a_port_in_use_is_named_with_the_option_that_helps(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        refused = run_up("--data", str(tmp_path), "--port", str(port), "--inference-port", "0")
    assert refused.returncode == 1
    assert f"127.0.0.1:{port}" in refused.stderr
    assert "--port 0" in refused.stderr


def test_the_children_of_a_killed_supervisor_make_room_for_the_next(
    tmp_path: Path, up: Callable[..., Any]
) -> None:
    first = up(tmp_path)
    port = first.announced["url"].rpartition(":")[2]
    pids = first.pids()
    os.kill(first.process.pid, signal.SIGKILL)
    first.process.communicate()
    second = up(tmp_path, "--port", port)
    assert second.announced["url"] == first.announced["url"]
    assert not any(alive(pid) for pid in pids)
