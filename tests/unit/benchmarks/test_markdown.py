"""The figures of a run as Markdown."""

from __future__ import annotations

from typing import Any

import pytest
from benchmarks.figures import Figure
from benchmarks.markdown import searches, table

QUESTION = "200,000 ivf, top 10 at 0.95"
WAYS = {
    "in process, one query": 0.91,
    "in process, 256 queries a request": 0.92,
    "HTTP, one query, 1 connection": 0.93,
    "HTTP, one query, 4 connections": 0.94,
    "HTTP, one query, 32 connections": 0.95,
    "HTTP, 256 queries a request, 1 connection": 0.96,
}


def _figure(name: str, limit_name: str, ratio: float, **details: float) -> dict[str, Any]:
    figure = Figure("search", name, "queries/s", 12345.6, 20000.0, limit_name, ratio, 5, details)
    return dict(figure.to_json())


def test_a_line_for_each_figure() -> None:
    figure = _figure("100 keys", "bare", 0.617, p50_ms=0.1234, p99_ms=2.0)
    assert table([figure]).splitlines()[2] == (
        "| search | 100 keys | 12,346 | 20,000 | queries/s | bare | **0.617** | 0.123 / 2 |"
    )


def test_the_ways_of_a_question_stand_in_one_line_with_both_ratios() -> None:
    name = f"{QUESTION} (recall 0.961, FAISS 0.960)"
    figures = [
        _figure(f"{name}, {way}", "FAISS in process, one thread", ratio) for way, ratio in WAYS.items()
    ]
    figures += [
        _figure(f"{name}, {way}", "bare ASGI and FAISS, one thread", 1.5) for way in WAYS if "HTTP" in way
    ]
    assert searches(figures).splitlines()[2] == (
        f"| {QUESTION} | 0.961 | 12,346 (0.91) | 12,346 (0.92) | 12,346 (0.93, 1.50) | 12,346 (0.94, 1.50) "
        "| 12,346 (0.95, 1.50) | 12,346 (0.96, 1.50) |"
    )


def test_a_figure_that_is_no_search_is_refused() -> None:
    with pytest.raises(ValueError, match="'100 keys' is not the name of a search"):
        searches([_figure("100 keys", "bare", 1.0)])
