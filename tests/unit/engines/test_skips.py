"""When a test that is skipped is a failure, and what it says for itself."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from tests.conftest import may_skip
from tests.engines import ENGINES, PROMTOOL, TOOLS, Absent
from tests.engines.__main__ import main


@pytest.mark.parametrize(
    ("reason", "required", "allowed"),
    [
        ("NO REDIS: apt-get install redis-server", "", True),
        ("only Linux tells mapped memory from anonymous", "", True),
        ("NO REDIS: apt-get install redis-server", "all", False),
        ("only Linux tells mapped memory from anonymous", "all", False),
        ("NO REDIS: apt-get install redis-server", "postgresql,s3", True),
        ("NO REDIS: apt-get install redis-server", "postgresql,redis", False),
        ("NO PROMTOOL: apt-get install prometheus", "postgresql,s3", True),
        ("NO PROMTOOL: apt-get install prometheus", "postgresql,promtool", False),
        ("NO PG_DUMP: apt-get install postgresql-client", "promtool", True),
        ("NO PG_DUMP: apt-get install postgresql-client", "pg_dump", False),
        ("NO SMALL DISK: user namespaces cannot mount", "postgresql,s3", False),
    ],
)
def test_a_skip_is_allowed_only_for_want_of_what_need_not_be_there(
    reason: str, required: str, allowed: bool
) -> None:
    assert may_skip(reason, required) is allowed


@pytest.mark.parametrize("name", ENGINES)
def test_the_reason_names_the_engine_and_the_command_that_installs_it(name: str) -> None:
    engine = ENGINES[name]
    reason = str(engine.absent())
    assert reason.startswith(f"NO {name.upper()}: {engine.install}")
    assert engine.variable in reason


@pytest.mark.parametrize("name", TOOLS)
def test_the_reason_names_the_tool_and_the_command_that_installs_it(name: str) -> None:
    assert str(TOOLS[name].absent()).startswith(f"NO {name.upper()}: {TOOLS[name].install}")


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine on which every engine is named and nothing is installed; the only folder of its PATH."""
    for engine in ENGINES.values():
        monkeypatch.setenv(engine.variable, "somewhere://else")
    monkeypatch.delenv(PROMTOOL.variable, raising=False)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "bin").mkdir()
    return tmp_path / "bin"


def test_a_package_that_cannot_be_fetched_is_told_and_leaves_nothing(bare: Path, tmp_path: Path) -> None:
    with pytest.raises(Absent, match=r"NO PROMTOOL: .*this machine has no apt-get"):
        PROMTOOL.find()
    install(bare / "apt-get", "echo 'E: Unable to locate package prometheus' >&2; exit 100")
    with pytest.raises(Absent, match="Unable to locate package prometheus"):
        PROMTOOL.find()
    assert list((tmp_path / "cache" / "bedplate").iterdir()) == []


def test_the_names_for_make_are_those_of_the_engines_and_tools_that_are_there(
    bare: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["tests.engines", "--names"])
    main()
    assert capsys.readouterr().out.split() == [",".join(ENGINES)]
    install(bare / "promtool", "exit 0")
    main()
    assert capsys.readouterr().out.split() == [",".join((*ENGINES, "promtool"))]
    monkeypatch.setattr(sys, "argv", ["tests.engines"])
    main()
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == [*ENGINES, *TOOLS]
    assert lines[-1].endswith("NO PG_DUMP: apt-get install postgresql-client")


def install(program: Path, script: str) -> None:
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
