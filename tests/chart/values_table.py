"""The chart's README has a table made from values.yaml: ``python -m tests.chart.values_table`` writes it."""

from __future__ import annotations

import json
import re
from typing import Any

import yaml
from tests.chart.rendering import CHART

README = CHART / "README.md"
BEGIN, END = "<!-- values -->\n", "<!-- /values -->\n"
_KEY = re.compile(r"^( *)([A-Za-z]\w*):")
_BEGUN = "# -- "


def table() -> str:
    """Markdown, one line for each value that has a comment of its own."""
    text = (CHART / "values.yaml").read_text()
    values = yaml.safe_load(text)
    lines = ["| value | default | meaning |", "|---|---|---|"]
    for path, meaning in comments(text).items():
        default = json.dumps(value_at(values, path)).replace("|", "\\|")
        lines.append(f"| `{'.'.join(path)}` | `{default}` | {meaning} |")
    return "\n".join(lines) + "\n"


def comments(text: str) -> dict[tuple[str, ...], str]:
    """What stands after ``# --`` above each value, by the value's path."""
    found: dict[tuple[str, ...], str] = {}
    path: list[str] = []
    comment: list[str] = []
    for line in text.splitlines():
        bare = line.strip()
        if bare.startswith(_BEGUN):
            comment = [bare.removeprefix(_BEGUN)]
        elif bare.startswith("# ") and comment:
            comment.append(bare.removeprefix("# "))
        elif match := _KEY.match(line):
            path[len(match[1]) // 2 :] = [match[2]]
            if comment:
                found[tuple(path)] = " ".join(comment)
            comment = []
        else:
            comment = []
    return found


def value_at(values: dict[str, Any], path: tuple[str, ...]) -> Any:
    """The value at the end of ``path``."""
    value: Any = values
    for key in path:
        value = value[key]
    return value


def main() -> None:
    """Rewrite the table in the README."""
    before, _, rest = README.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    README.write_text(f"{before}{BEGIN}{table()}{END}{after}")


if __name__ == "__main__":
    main()
