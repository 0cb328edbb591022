"""The table at the end, and the document that keeps the figures."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from benchmarks.figures import Figure
from benchmarks.workbench import Scale


def print_table(figures: Sequence[Figure], console: Console) -> None:
    """One line a figure."""
    table = Table("benchmark", "what", title="Measured, beside the limit measured in the same run")
    for column in ("measured", "limit", "unit"):
        table.add_column(column, justify="left" if column == "unit" else "right")
    table.add_column("what the limit is")
    table.add_column("ratio", justify="right", style="bold")
    table.add_column("p50 / p99 ms", justify="right")
    for figure in figures:
        table.add_row(
            figure.benchmark,
            Text(figure.name),
            number(figure.value),
            number(figure.limit),
            figure.unit,
            Text(figure.limit_name),  # a name may hold brackets, which are markup elsewhere
            f"{figure.ratio:.3f}",
            _latency(figure),
        )
    console.print(table)


def number(value: float) -> str:
    """Three significant digits, or all of them before the point."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _latency(figure: Figure) -> str:
    if "p50_ms" not in figure.details:
        return ""
    return f"{number(figure.details['p50_ms'])} / {number(figure.details['p99_ms'])}"


def document(
    figures: Sequence[Figure], scale: Scale, load_before: tuple[float, float, float]
) -> dict[str, Any]:
    """The figures with what one must know to compare them. Load averages tell how quiet the machine was."""
    return {
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {
            "cores": os.cpu_count(),
            "architecture": platform.machine(),
            "python": platform.python_version(),
            "load_average_before": list(load_before),
            "load_average_after": list(os.getloadavg()),
        },
        "scale": {"rows": scale.rows, "rounds": scale.rounds, "quick": scale.quick},
        "figures": [figure.to_json() for figure in figures],
    }


def write(path: Path, content: dict[str, Any]) -> None:
    """As JSON; missing folders are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n")
