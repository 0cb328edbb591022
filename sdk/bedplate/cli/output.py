"""What commands print: results on standard output, everything else on standard error."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from pydantic import BaseModel
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from bedplate.errors import BedplateError
from bedplate.wire.store import Job

Cell = str | int | float | bool | datetime | None


def messages() -> Console:
    """Standard error; made anew each time, because tests exchange sys.stderr."""
    return Console(stderr=True, highlight=False, soft_wrap=True)


def say(text: str) -> None:
    """Tell the person at the terminal something that is not the result."""
    messages().print(Text(text))


def print_json(value: Any) -> None:
    """Print documents (or plain values) as JSON."""
    print(json.dumps(plain(value), indent=2, ensure_ascii=False))


def plain(value: Any) -> Any:
    """Documents as plain JSON values, also inside lists and dictionaries; non-finite numbers become null."""
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, dict):
        return {key: plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    if isinstance(value, datetime):
        return value.isoformat()
    if (isinstance(value, float) and value != value) or value in (float("inf"), float("-inf")):
        return None
    return value


def cell(value: Cell) -> str:
    """A value as people read it: times in UTC to the second, nothing as a dash."""
    if value is None or value == "":
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, datetime):
        return value.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%SZ")
    if isinstance(value, float):
        return f"{value:.4f}"
    if isinstance(value, int):
        return f"{value:,}"
    return value


def print_table(columns: Sequence[str], rows: Sequence[Sequence[Cell]]) -> None:
    """Print a table; numbers stand to the right. Into a pipe it is as wide as its contents."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=10_000)
    # Documents are shown as names and values, without a header.
    table = Table(show_header=any(columns), header_style="bold", box=None, pad_edge=False)
    for index, name in enumerate(columns):
        numeric = any(isinstance(row[index], int | float) for row in rows)
        table.add_column(name, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell(value)) for value in row))
    console.print(table)


def show_list(
    documents: Sequence[Any],
    columns: Sequence[str],
    row: Callable[[Any], Sequence[Cell]],
    *,
    as_json: bool,
    empty: str,
) -> None:
    """Print documents as a table or JSON; ``empty`` says what to do where there are none."""
    if as_json:
        print_json(list(documents))
    elif documents:
        print_table(columns, [row(document) for document in documents])
    else:
        say(empty)


def show(document: BaseModel, *, as_json: bool, done: str | None = None, hide: Sequence[str] = ()) -> None:
    """Print one document, a line for each member; ``done`` is said before it."""
    if as_json:
        print_json(document)
        return
    if done:
        say(done)
    rows = []
    for name in type(document).model_fields:
        if name not in hide:
            value = getattr(document, name)
            simple = isinstance(value, Cell)
            rows.append((name, cell(value) if simple else json.dumps(plain(value), ensure_ascii=False)))
    print_table(("", ""), rows)


def report(error: BedplateError, *, as_json: bool) -> None:
    """Print an error to standard error."""
    if as_json:
        document = {"code": error.code, "title": error.title, "detail": error.detail, **plain(error.context)}
        document["request_id"] = error.request_id
        print(json.dumps(document, ensure_ascii=False, default=str), file=sys.stderr)
        return
    console = messages()
    console.print(Text(f"{error.title}: ", style="bold red") + Text(error.detail))
    if error.request_id:
        console.print(Text(f"request id: {error.request_id}", style="dim"))


def _bar(*columns: Any) -> Progress:
    console = messages()
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        *columns,
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
    )


@contextmanager
def transfer_bar(title: str) -> Iterator[Callable[[str, int, int], None]]:
    """A bar of bytes on standard error; call what it gives with (file name, bytes done, bytes in all)."""
    with _bar(DownloadColumn()) as progress:
        task = progress.add_task(title, total=None)

        def advance(name: str, done: int, total: int) -> None:
            progress.update(task, description=f"{title} {name}", completed=done, total=total)

        yield advance


@contextmanager
def row_bar(title: str) -> Iterator[Callable[[int, int | None], None]]:
    """A bar of rows on standard error; call what it gives with (rows done, rows in all or None)."""
    with _bar(MofNCompleteColumn()) as progress:
        task = progress.add_task(title, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


@contextmanager
def job_bars() -> Iterator[Callable[[Job], None]]:
    """A bar for each stage of a job on standard error; call what it gives with the job's document."""
    with _bar(MofNCompleteColumn(), TextColumn("{task.fields[unit]}")) as progress:
        tasks: dict[str, Any] = {}

        def update(job: Job) -> None:
            for stage in job.progress:
                if stage.stage not in tasks:
                    tasks[stage.stage] = progress.add_task(stage.stage, total=stage.total, unit=stage.unit)
                progress.update(tasks[stage.stage], completed=stage.done, total=stage.total)

        yield update
