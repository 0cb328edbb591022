"""The round that `helm test` makes, against a platform of real processes."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from typing import Any

import pytest

from bedplate import Client
from bedplate_services import round_trip
from bedplate_services.supervisor.platform import Platform


def go_round(platform: Platform, token: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "BEDPLATE_URL": platform.url, "BEDPLATE_TOKEN": token}
    environment.pop("BEDPLATE_INFERENCE_URL", None)
    command = [sys.executable, "-m", "bedplate_services.round_trip", "--timeout-seconds", "120", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240)


def test_it_goes_round_again_and_again_and_leaves_others_alone(
    platform: Platform, client: Client, world: Any
) -> None:
    users = [f"user-{number}" for number in range(3)]
    before = [len(client.timelines.read(user).events) for user in users]
    for _ in range(2):
        done = go_round(platform, platform.token)
        assert done.returncode == 0, done.stderr
        assert re.search(r"^bedplate-round-trip@\d+ is retired; everything works$", done.stdout, re.MULTILINE)
    versions = client.versions.list(round_trip.NAME)
    assert [version.state for version in versions] == ["retired"] * len(versions)
    # Nobody else was embedded, the events were sent once, and no alias makes others pay for the version.
    found = client.spaces.lookup(f"{versions[-1].reference}/user", [*round_trip.USERS, *users])
    assert found.found.tolist() == [True] * len(round_trip.USERS) + [False] * len(users)
    own = [len(client.timelines.read(user).events) for user in round_trip.USERS]
    assert own == [round_trip.EVENTS_PER_USER] * len(round_trip.USERS)
    assert [len(client.timelines.read(user).events) for user in users] == before
    assert list(client.aliases.list(round_trip.NAME)) == []


def test_it_fails_with_the_reason(platform: Platform) -> None:
    unknown = go_round(platform, "bedplate_nobody")
    assert unknown.returncode == 1
    assert "token" in unknown.stderr
    nowhere = go_round(platform, platform.token, "--inference-url", "http://127.0.0.1:9")
    assert nowhere.returncode == 1
    assert "The inference service does not answer at http://127.0.0.1:9" in nowhere.stderr


def test_a_wrong_vector_is_noticed(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    real = round_trip.expected_vectors
    monkeypatch.setattr(round_trip, "expected_vectors", lambda *given: real(*given)[::-1])
    with pytest.raises(round_trip.Wrong, match="differs from what the model computes"):
        round_trip.walk(client, timeout_seconds=120, say=lambda _: None)
