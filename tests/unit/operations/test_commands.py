"""The commands, settings and files that docs/operations.md names are there."""

from __future__ import annotations

import importlib.util
import re
import shlex
from typing import Any

import pytest
import typer.main
from tests.unit.operations.documents import OPERATIONS, anchors
from typer.core import TyperGroup

from bedplate import cli
from bedplate_services.settings import Settings
from bedplate_workers.settings import WorkerSettings

TEXT = OPERATIONS.read_text()
COMMANDS = sorted(set(re.findall(r"`(bedplate [^`]+)`", TEXT)))
MODULES = sorted(set(re.findall(r"python -m (bedplate_[\w.]+|benchmarks)", TEXT)))
LINKS = sorted(set(re.findall(r"\]\(((?!http)[^)]+)\)", TEXT)))


@pytest.mark.parametrize("line", COMMANDS)
def test_every_command_is_one_with_these_options(line: str) -> None:
    words = shlex.split(line)[1:]
    command: Any = typer.main.get_command(cli.create_app())
    while isinstance(command, TyperGroup):
        assert words[0] in command.commands, line
        command = command.commands[words.pop(0)]
    known = {name for option in command.params for name in option.opts} | {"--help"}
    assert {word for word in words if word.startswith("--")} <= known, line


@pytest.mark.parametrize("module", MODULES)
def test_every_module_that_is_to_be_run_is_there(module: str) -> None:
    assert importlib.util.find_spec(module) is not None


def test_every_setting_is_one() -> None:
    known = {f"BEDPLATE_{name.upper()}" for kind in (Settings, WorkerSettings) for name in kind.model_fields}
    assert set(re.findall(r"\bBEDPLATE_[A-Z_0-9]+", TEXT)) <= known


@pytest.mark.parametrize("link", LINKS)
def test_every_link_leads_somewhere(link: str) -> None:
    path, _, anchor = link.partition("#")
    document = OPERATIONS.parent / path if path else OPERATIONS
    assert document.exists()
    assert not anchor or anchor in anchors(document)
