"""Every query of the dashboards is about metrics that there are."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from tests.unit.operations.documents import ROOT, documented_by_row, faults_of

DASHBOARDS = sorted((ROOT / "helm" / "bedplate" / "dashboards").glob("*.json"))
LARGEST_BYTES = 900_000
"""A ConfigMap, which each of them becomes, holds 1 MiB."""


def panels(path: Path) -> list[dict[str, Any]]:
    return [panel for panel in json.loads(path.read_text())["panels"] if panel["type"] != "row"]


def queries(path: Path) -> list[str]:
    return [target["expr"] for panel in panels(path) for target in panel["targets"]]


def test_there_are_dashboards() -> None:
    assert len(DASHBOARDS) >= 2
    assert len({json.loads(path.read_text())["uid"] for path in DASHBOARDS}) == len(DASHBOARDS)


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_every_query_is_about_documented_metrics(path: Path) -> None:
    assert {query: faults for query in queries(path) if (faults := faults_of(query))} == {}


def test_every_metric_is_on_a_dashboard() -> None:
    """Of those that several services have, it is enough that one of them shows it."""
    shown = set(
        re.findall(r"bedplate_\w+", " ".join(query for path in DASHBOARDS for query in queries(path)))
    )
    for name, series in documented_by_row().items():
        assert shown & set(series), f"no panel shows {name}"


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_panels_do_not_overlap_and_ask_the_chosen_source(path: Path) -> None:
    taken: set[tuple[int, int]] = set()
    for panel in json.loads(path.read_text())["panels"]:
        at = panel["gridPos"]
        cells = {(at["x"] + dx, at["y"] + dy) for dx in range(at["w"]) for dy in range(at["h"])}
        assert not cells & taken, panel["title"]
        taken |= cells
        assert at["x"] + at["w"] <= 24
    assert {panel["datasource"]["uid"] for panel in panels(path)} == {"${datasource}"}
    assert path.stat().st_size < LARGEST_BYTES
