"""The chart's README says what values.yaml says, and every value is explained."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml
from tests.chart.rendering import CHART, Helm
from tests.chart.values_table import BEGIN, END, README, comments, table

VALUES = CHART / "values.yaml"


def test_the_table_of_values_is_that_of_values_yaml() -> None:
    written = README.read_text().partition(BEGIN)[2].partition(END)[0]
    assert written == table(), "python -m tests.chart.values_table writes it anew"


def test_every_value_has_a_comment() -> None:
    explained = set(comments(VALUES.read_text()))

    def check(values: dict[str, Any], path: tuple[str, ...]) -> None:
        for key, value in values.items():
            own = (*path, key)
            if own in explained:
                continue
            assert isinstance(value, dict), f"{'.'.join(own)} has no comment"
            assert value, f"{'.'.join(own)} has no comment"
            check(value, own)

    check(yaml.safe_load(VALUES.read_text()), ())


def test_values_that_the_readme_names_are_there() -> None:
    explained = {".".join(path) for path in comments(VALUES.read_text())}
    parents = {name.rpartition(".")[0] for name in explained}
    prose = README.read_text().partition(BEGIN)[0]
    named = set(re.findall(r"`([a-z]\w*(?:\.\w+)+)`", prose))
    roots = {name.partition(".")[0] for name in explained}
    assert {name for name in named if name.partition(".")[0] in roots} <= explained | parents


def test_the_production_example_renders(helm: Helm, tmp_path: Path) -> None:
    (example,) = re.findall(r"```yaml\n# production.yaml\n(.*?)```", README.read_text(), re.DOTALL)
    file = tmp_path / "production.yaml"
    file.write_text(example)
    assert yaml.safe_load(example)["profile"] == "production"
    helm.lint(f"--values={file}")
