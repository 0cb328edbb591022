"""The command line of the benchmarks."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from benchmarks.__main__ import BENCHMARKS

ROOT = Path(__file__).parents[3]


def _run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "benchmarks", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_help_names_the_benchmarks_and_gives_an_example() -> None:
    answer = _run("--help")
    assert answer.returncode == 0, answer.stderr
    assert "Example: python -m benchmarks lookup search --quick" in answer.stdout
    for name in BENCHMARKS:
        assert name in answer.stdout


@pytest.mark.parametrize("name", BENCHMARKS)
def test_the_document_explains_each_benchmark(name: str) -> None:
    assert f"\n| {name}" in (ROOT / "docs" / "benchmarks.md").read_text()


def test_an_unknown_benchmark_is_refused_with_the_known_ones() -> None:
    answer = _run("lokup")
    assert answer.returncode == 2
    assert "'lokup'" in answer.stderr
    assert "upserts" in answer.stderr
