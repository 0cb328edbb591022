"""``make help`` lists every target, and the variables of ``make demo`` reach the command."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest
import typer.main

from bedplate.cli import create_app

ROOT = Path(__file__).parents[3]
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
TARGETS = {
    target for line in re.findall(r"^\.PHONY:(.*)$", MAKEFILE, re.MULTILINE) for target in line.split()
}


def make(*arguments: str) -> str:
    # As typed into a shell: under `make test` the outer make would have this one tell which folder it enters.
    outer = {"MAKEFLAGS", "MAKELEVEL", "MFLAGS"}
    environment = {name: value for name, value in os.environ.items() if name not in outer}
    done = subprocess.run(
        ["make", *arguments], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    return done.stdout


def test_help_lists_every_target() -> None:
    listed = dict(line.split(maxsplit=2)[1:] for line in make("help").splitlines())
    assert set(listed) == TARGETS
    assert {"demo", "test", "help"} <= TARGETS
    assert all(len(text) > 5 for text in listed.values())


def test_help_is_what_make_alone_prints() -> None:
    assert make() == make("help")


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ((), "--dataset movielens-1m"),
        (("KEEP=1",), "--dataset movielens-1m --keep"),
        (("SEEDS=3", "DATASET=synthetic"), "--dataset synthetic --seeds 3"),
        (("DATASET=./mine", "KEEP=1", "SEEDS=1"), "--dataset ./mine --keep --seeds 1"),
    ],
)
def test_variables_of_make_demo_become_options(variables: tuple[str, ...], expected: str) -> None:
    printed = make("--dry-run", "--old-file=.venv/.installed", "demo", *variables)
    command = next(line for line in printed.splitlines() if "bedplate demo" in line)
    assert command.split("bedplate demo", 1)[1].split() == expected.split()
    known = {option for one in _demo().params for option in one.opts}
    assert {word for word in expected.split() if word.startswith("--")} <= known


def test_help_names_the_variables_of_the_demo() -> None:
    line = next(line for line in make("help").splitlines() if line.split()[1] == "demo")
    assert all(name in line for name in ("KEEP=1", "SEEDS=", "DATASET="))


def _demo() -> typer.main.TyperCommand:
    found: typer.main.TyperCommand = typer.main.get_command(create_app()).commands["demo"]  # type: ignore[attr-defined]
    return found
