"""What the documents say, for the tests that hold rules and dashboards to them."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[3]
OPERATIONS = ROOT / "docs" / "operations.md"
_SERVICES = ("api", "inference", "store_node")
_ROW = re.compile(r"^\| `(bedplate_[\w<>]+)` \| ([^|]*)\| ([^|]+) \|$", re.MULTILINE)
_METRIC = re.compile(r"\b(bedplate_\w+)(?:\{([^}]*)\})?")
_MATCHER = re.compile(r"(\w+)\s*(?:=~|!~|!=|=)")
_GROUPING = re.compile(r"\b(?:by|on|ignoring|without)\s*\(([^)]*)\)")
_OF_PROMETHEUS = {"instance", "job", "le"}


def documented_by_row() -> dict[str, dict[str, set[str]]]:
    """The time series of each row of docs/metrics.md and their labels; a histogram has three."""
    rows = {}
    for name, labels, meaning in _ROW.findall((ROOT / "docs" / "metrics.md").read_text()):
        known = {label.strip() for label in labels.split(",") if label.strip()}
        series: dict[str, set[str]] = {}
        for service in _SERVICES if "<service>" in name else ("",):
            whole = name.replace("<service>", service)
            if meaning.startswith("histogram"):
                series[f"{whole}_bucket"] = known | {"le"}
                series[f"{whole}_sum"] = series[f"{whole}_count"] = known
            else:
                series[whole] = known
        rows[name] = series
    return rows


def documented() -> dict[str, set[str]]:
    """Labels of every time series of docs/metrics.md."""
    return {name: labels for series in documented_by_row().values() for name, labels in series.items()}


def faults_of(expression: str) -> list[str]:
    """What is wrong with a PromQL expression, by docs/metrics.md."""
    metrics = documented()
    used = _METRIC.findall(expression)
    faults = [f"{name} is no metric" for name, _ in used if name not in metrics]
    labels = {label for name, _ in used if name in metrics for label in metrics[name]} | _OF_PROMETHEUS
    for name, matchers in used:
        own = metrics.get(name, set()) | _OF_PROMETHEUS
        faults += [f"{name} has no label {label}" for label in _MATCHER.findall(matchers) if label not in own]
    for grouping in _GROUPING.findall(expression):
        names = [label.strip() for label in grouping.split(",") if label.strip()]
        faults += [f"nothing here has a label {label}" for label in names if label not in labels]
    for name, _ in used:
        if name.endswith(("_total", "_bucket", "_sum", "_count")) and not _rated(expression, name):
            faults.append(f"{name} only ever grows: take its rate or increase")
    return faults or ([] if used else ["no metric of ours"])


def _rated(expression: str, name: str) -> bool:
    uses = len(re.findall(rf"\b{name}\b", expression))
    rated = len(re.findall(rf"\b(?:rate|increase|absent)\(\s*{name}\b", expression))
    return uses == rated


def anchors(document: Path) -> set[str]:
    """The anchors of the document's headings, as Markdown readers make them."""
    headings = re.findall(r"^#+ (.+)$", document.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}
