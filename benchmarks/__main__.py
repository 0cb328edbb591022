"""``python -m benchmarks``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from bedplate.errors import BedplateError
from benchmarks import (
    bulk_read,
    compressed_reads,
    embed,
    index_build,
    large_space,
    lookup,
    report,
    sdk,
    search,
    shards,
    swap,
    training_read,
    upserts,
)
from benchmarks.choices import among
from benchmarks.figures import Figure
from benchmarks.workbench import Scale, Workbench

BENCHMARKS = {
    module.NAME: module.run
    for module in (
        lookup,
        search,
        sdk,
        embed,
        index_build,
        bulk_read,
        compressed_reads,
        training_read,
        upserts,
        large_space,
        shards,
        swap,
    )
}
OUTPUT = Path("benchmarks") / "results" / "latest.local.json"
_WIDTH = 200
_LEAST_ROWS = 10_000


def main(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            help=f"Any of {', '.join(BENCHMARKS)}. Default: all.", callback=among(BENCHMARKS, "benchmark")
        ),
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="50,000 rows and fewer rounds: a few minutes.")
    ] = False,
    rows: Annotated[
        int | None,
        typer.Option(
            min=_LEAST_ROWS,
            help="Rows of the lookup; the others take a fifth or a tenth. Default: 1,000,000.",
        ),
    ] = None,
    output: Annotated[Path, typer.Option(help="Where the figures are written as JSON.")] = OUTPUT,
) -> None:
    """Measure the platform, each figure beside the physical limit measured in the same run.

    A ratio of 1.0 is the limit. docs/benchmarks.md says what each figure means.

    Example: python -m benchmarks lookup search --quick
    """
    scale = Scale.chosen(rows, quick)
    messages = Console(stderr=True)
    load_before = os.getloadavg()
    try:
        figures = measure(names or [], scale, messages)
    except BedplateError as error:
        messages.print(f"{error.title}: {error.detail}", style="red", markup=False, highlight=False)
        raise typer.Exit(1) from error
    console = Console()
    report.print_table(figures, console if console.is_terminal else Console(width=_WIDTH))
    report.write(output, report.document(figures, scale, load_before))
    messages.print(f"All figures: {output}", highlight=False)


def measure(names: list[str], scale: Scale, console: Console) -> list[Figure]:
    """Run the benchmarks of these names on one platform."""
    with Workbench(scale, console) as bench:
        return [figure for name in names for figure in BENCHMARKS[name](bench)]


if __name__ == "__main__":
    typer.run(main)
