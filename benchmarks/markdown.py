"""``python -m benchmarks.markdown FILE``: the figures of a run as the tables of docs/benchmarks.md."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks.report import number

_SEARCH = "search"
_WAYS = (
    "in process, one query",
    "in process, 256 queries a request",
    "HTTP, one query, 1 connection",
    "HTTP, one query, 4 connections",
    "HTTP, one query, 32 connections",
    "HTTP, 256 queries a request, 1 connection",
)
_TITLE = re.compile(r"^(?P<question>.*) \(recall (?P<recall>[0-9.]+), FAISS [0-9.]+\), (?P<way>.*)$")
_BARE = "bare ASGI"

FigureDocument = Mapping[str, Any]
"""A figure as the JSON file has it."""


def main(file: Annotated[Path, typer.Argument(help="What `python -m benchmarks --output` wrote.")]) -> None:
    """Print the figures of a run as Markdown.

    Example: python -m benchmarks.markdown benchmarks/results/latest.local.json
    """
    figures = json.loads(file.read_text())["figures"]
    print(table([figure for figure in figures if figure["benchmark"] != _SEARCH]))
    print()
    print(searches([figure for figure in figures if figure["benchmark"] == _SEARCH]))


def table(figures: Sequence[FigureDocument]) -> str:
    """One line a figure."""
    lines = [["benchmark", "what", "measured", "limit", "unit", "what the limit is", "ratio", "p50 / p99 ms"]]
    lines.append(["---"] * len(lines[0]))
    for figure in figures:
        details = figure["details"]
        latency = (
            " / ".join(f"{details[f'p{each}_ms']:.3g}" for each in (50, 99)) if "p50_ms" in details else ""
        )
        measured, limit = number(figure["value"]), number(figure["limit"])
        ratio = f"**{figure['ratio']:.3f}**"
        what = figure["name"]
        lines.append(
            [figure["benchmark"], what, measured, limit, figure["unit"], figure["limit_name"], ratio, latency]
        )
    return _rows(lines)


def searches(figures: Sequence[FigureDocument]) -> str:
    """One line a question, one column a way to ask it: queries a second, and the ratios to FAISS in process
    and, over HTTP, to a bare application around FAISS."""
    cells: dict[tuple[str, str], dict[str, FigureDocument]] = {}
    for figure in figures:
        title = _TITLE.match(figure["name"])
        if title is None:
            raise ValueError(f"{figure['name']!r} is not the name of a search")
        asked = (title["question"], title["recall"])
        way = title["way"] + (" bare" if figure["limit_name"].startswith(_BARE) else "")
        cells.setdefault(asked, {})[way] = figure
    lines = [["index, results, recall asked for", "recall", *_WAYS]]
    lines.append(["---"] * len(lines[0]))
    for (question, recall), ways in cells.items():
        lines.append([question, recall, *(_cell(ways, way) for way in _WAYS)])
    return _rows(lines)


def _cell(ways: Mapping[str, FigureDocument], way: str) -> str:
    figure, bare = ways[way], ways.get(f"{way} bare")
    ratios = f"{figure['ratio']:.2f}" + (f", {bare['ratio']:.2f}" if bare else "")
    return f"{number(figure['value'])} ({ratios})"


def _rows(lines: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    typer.run(main)
