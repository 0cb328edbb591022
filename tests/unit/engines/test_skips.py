"""When a test that is skipped is a failure."""

from __future__ import annotations

import pytest
from tests.conftest import may_skip
from tests.engines import ENGINES


@pytest.mark.parametrize(
    ("reason", "required", "allowed"),
    [
        ("NO REDIS: apt-get install redis-server", "", True),
        ("only Linux tells mapped memory from anonymous", "", True),
        ("NO REDIS: apt-get install redis-server", "all", False),
        ("only Linux tells mapped memory from anonymous", "all", False),
        ("NO REDIS: apt-get install redis-server", "postgresql,s3", True),
        ("NO REDIS: apt-get install redis-server", "postgresql,redis", False),
        ("NO SMALL DISK: user namespaces cannot mount", "postgresql,s3", False),
    ],
)
def test_a_skip_is_allowed_only_for_want_of_an_engine_that_need_not_be_there(
    reason: str, required: str, allowed: bool
) -> None:
    assert may_skip(reason, required) is allowed


@pytest.mark.parametrize("name", ENGINES)
def test_the_reason_names_the_engine_and_the_command_that_installs_it(name: str) -> None:
    engine = ENGINES[name]
    reason = str(engine.absent())
    assert reason.startswith(f"NO {name.upper()}: {engine.install}")
    assert engine.variable in reason
