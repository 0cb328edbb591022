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


def test_it_goes_round_again_and_again_and_leaves_others_alone(
    platform: Platform, client: Client, world: Any
) -> None:
    users = [f"user-{number}" for number in range(3)]
    before = [len(client.timelines.read(user).events) for user in users]
    # As the pod of `helm test` runs it; a platform that has never seen it, then one that has.
    command = [sys.executable, "-m", "bedplate_services.round_trip", "--timeout-seconds", "120"]
    environment = {**os.environ, "BEDPLATE_URL": platform.url, "BEDPLATE_TOKEN": platform.token}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert re.search(
        r"^bedplate-round-trip@\d+ is retired; every answer was right$", done.stdout, re.MULTILINE
    )
    round_trip.walk(client, timeout_seconds=120, say=lambda _: None)
    versions = client.versions.list(round_trip.NAME)
    assert [version.state for version in versions] == ["retired"] * len(versions)
    # Nobody else was embedded, the events were sent once, and no alias makes others pay for the version.
    found = client.spaces.lookup(f"{versions[-1].reference}/user", [*round_trip.USERS, *users])
    assert found.found.tolist() == [True] * len(round_trip.USERS) + [False] * len(users)
    own = [len(client.timelines.read(user).events) for user in round_trip.USERS]
    assert own == [round_trip.EVENTS_PER_USER] * len(round_trip.USERS)
    assert [len(client.timelines.read(user).events) for user in users] == before
    assert list(client.aliases.list(round_trip.NAME)) == []


def test_it_fails_with_the_reason(
    platform: Platform, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("BEDPLATE_URL", platform.url)
    monkeypatch.setenv("BEDPLATE_TOKEN", "bedplate_nobody")
    assert round_trip.main([]) == 1
    assert "The token is not known here" in capsys.readouterr().err
    monkeypatch.setenv("BEDPLATE_TOKEN", platform.token)
    assert round_trip.main(["--inference-url", "http://127.0.0.1:9"]) == 1
    assert "The inference service does not answer at http://127.0.0.1:9" in capsys.readouterr().err


def test_a_wrong_vector_is_noticed(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    real = round_trip.expected_vectors
    monkeypatch.setattr(round_trip, "expected_vectors", lambda *given: real(*given)[::-1])
    with pytest.raises(round_trip.Wrong, match="differs from what the model computes"):
        round_trip.walk(client, timeout_seconds=120, say=lambda _: None)
