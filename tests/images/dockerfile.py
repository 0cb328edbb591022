"""The Dockerfile, taken apart far enough to ask what a stage will hold."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TARGETS = ("api", "inference", "worker-cpu", "worker-gpu")


@dataclass
class Stage:
    """One ``FROM``. Of the instructions that a stage inherits, the parent's come first."""

    name: str
    base: str
    instructions: list[tuple[str, str]] = field(default_factory=list)

    def values(self, instruction: str) -> list[str]:
        return [value for word, value in self.instructions if word == instruction]

    def pairs(self, instruction: str) -> dict[str, str]:
        """``LABEL`` and ``ENV``: names and values, the last of a name."""
        text = " ".join(self.values(instruction))
        found = re.findall(r'([\w.]+)=(?:"([^"]*)"|(\S*))', text)
        return {name: quoted or plain for name, quoted, plain in found}

    def words(self, instruction: str) -> list[str]:
        """``ENTRYPOINT`` or ``CMD`` in exec form, the last one.

        Raises:
            ValueError: in shell form, where the shell would get the signals.
        """
        return list(json.loads(self.values(instruction)[-1]))


def instructions(text: str) -> Iterator[tuple[str, str]]:
    """Instruction and value, continued lines joined."""
    lines = (line for line in text.splitlines() if not line.lstrip().startswith("#"))
    for line in re.sub(r"\\\n\s*", "", "\n".join(lines)).splitlines():
        if line.strip():
            word, _, value = line.strip().partition(" ")
            yield word, value.strip()


def read_stages(path: Path = ROOT / "Dockerfile") -> dict[str, Stage]:
    """All stages by name, with what they inherit; arguments of ``FROM`` are replaced by their defaults."""
    arguments: dict[str, str] = {}
    stages: dict[str, Stage] = {}
    stage: Stage | None = None
    for word, value in instructions(path.read_text()):
        if word == "FROM":
            base, _, name = value.partition(" AS ")
            base = re.sub(r"\$\{(\w+)\}", lambda found: arguments[found[1]], base)
            inherited = stages[base].instructions if base in stages else []
            root = stages[base].base if base in stages else base
            stage = stages[name] = Stage(name, root, list(inherited))
        elif stage is None:
            name, _, default = value.partition("=")
            arguments[name] = default
        else:
            stage.instructions.append((word, value))
    return stages
