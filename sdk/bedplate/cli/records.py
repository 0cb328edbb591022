"""``bedplate events``, ``items`` and ``timelines``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from json import dumps
from pathlib import Path
from typing import Annotated

import pyarrow as pa
import typer

from bedplate.cli.options import AsJson, Time, client_of, command, group
from bedplate.cli.output import print_json, print_table, row_bar, say, show, show_list
from bedplate.datasets import EventFormat, TimeUnit, read_events
from bedplate.errors import BedplateError, InvalidRequest
from bedplate.wire.store import EventsAccepted, Item

_UNITS: dict[str, TimeUnit] = {"iso8601": "iso8601", "s": "s", "ms": "ms", "us": "us"}


events = group("events", "What users did.")
items = group("items", "The catalogue: items and their features.")
timelines = group("timelines", "What one user did, in time order.")


def add(app: typer.Typer) -> None:
    """Add the commands to ``app``."""
    for one in (events, items, timelines):
        app.add_typer(one)


@command(events, "import", "bedplate events import ./events --time-unit s --column user=user_id")
def import_events(
    context: typer.Context,
    directory: Annotated[Path, typer.Argument(help="Holds .parquet or .csv files.")],
    time_unit: Annotated[str, typer.Option(help="Of numeric times: s, ms or us.")] = "iso8601",
    assume_utc: Annotated[bool, typer.Option(help="Take times without a zone as UTC.")] = False,
    column: Annotated[
        list[str] | None, typer.Option(metavar="OURS=THEIRS", help="A column's name in the files.")
    ] = None,
    sort: Annotated[
        bool, typer.Option(help="By time, in memory; --no-sort sends the files as they lie.")
    ] = True,
    allow_late: Annotated[bool, typer.Option(help="Take events older than what is there.")] = False,
    dry_run: Annotated[bool, typer.Option(help="Only check the files; send nothing.")] = False,
    json: AsJson = False,
) -> None:
    """Check and send a directory of events: user, item, action, surface, event_time, label, features."""
    if time_unit not in _UNITS:
        raise InvalidRequest(f"--time-unit {time_unit}: use iso8601, s, ms or us.")
    how = EventFormat(_UNITS[time_unit], assume_utc, _renamed(column))
    tables = _counted(read_events(directory, how, report=say))
    if dry_run:
        rows = sum(table.num_rows for table in tables)
        answer = EventsAccepted(accepted=0, sequence=0)
        if json:
            print_json({"rows": rows, "accepted": 0})
        else:
            say(f"{rows:,} events can be sent; nothing was.")
        return
    if sort:
        # The sort is stable: events of one moment keep the order of the files.
        tables = iter([pa.concat_tables(list(tables)).sort_by("event_time")])
    answer = _send(context, tables, allow_late=allow_late)
    show(answer, as_json=json, done=f"{answer.accepted:,} events were accepted.")


@command(events, "count", "bedplate events count --start 2026-11-01T00:00:00Z")
def count(context: typer.Context, start: Time = None, end: Time = None, json: AsJson = False) -> None:
    """Count the events of a window, by surface."""
    table = client_of(context).events.scan(start, end)
    counted = table.group_by("surface").aggregate([([], "count_all")]).sort_by("surface").to_pylist()
    counts = {row["surface"]: row["count_all"] for row in counted}
    if json:
        print_json(counts)
    elif counts:
        print_table(("SURFACE", "EVENTS"), list(counts.items()))
    else:
        say("There are no events in this window. Send some: bedplate events import DIRECTORY")


def _counted(tables: Iterator[pa.Table]) -> Iterator[pa.Table]:
    with row_bar("read") as advance:
        rows = 0
        for table in tables:
            rows += table.num_rows
            advance(rows, None)
            yield table


def _send(context: typer.Context, tables: Iterator[pa.Table], *, allow_late: bool) -> EventsAccepted:
    client = client_of(context)
    accepted, sequence = 0, 0
    with row_bar("send") as advance:
        for table in tables:
            before = accepted
            try:
                answer = client.events.send(
                    table,
                    allow_late=allow_late,
                    progress=_after(before, advance),
                )
            except BedplateError as error:
                accepted += int(error.context.get("rows_accepted", 0))
                say(f"{accepted:,} events were accepted before the error; they stay.")
                raise
            accepted, sequence = accepted + answer.accepted, answer.sequence
    return EventsAccepted(accepted=accepted, sequence=sequence)


def _after(before: int, advance: Callable[[int, int | None], None]) -> Callable[[int, int], None]:
    """Progress within one table as progress over all so far."""
    return lambda done, total: advance(before + done, before + total)


def _renamed(values: list[str] | None) -> dict[str, str]:
    renamed = {}
    for value in values or ():
        ours, equals, theirs = value.partition("=")
        if not equals or not theirs:
            raise InvalidRequest(f"--column {value}: write OURS=THEIRS, e.g. user=user_id.")
        renamed[ours] = theirs
    return renamed


@command(items, "list", "bedplate items list --limit 20")
def list_items(
    context: typer.Context,
    limit: Annotated[int, typer.Option(min=1, help="Show at most so many; --json shows all.")] = 50,
    json: AsJson = False,
) -> None:
    """List the catalogue."""
    items = client_of(context).items.scan()
    show_list(
        items if json else items[:limit],
        ("ITEM", "FEATURES"),
        lambda item: (item.key, dumps(item.features, ensure_ascii=False)),
        as_json=json,
        empty="The catalogue is empty. Fill it: bedplate items import items.jsonl",
    )
    if len(items) > limit and not json:
        say(f"... and {len(items) - limit:,} more; --limit {len(items)} shows all.")


@command(items, "show", "bedplate items show 1193")
def show_item(context: typer.Context, key: str, json: AsJson = False) -> None:
    """Show one item's features."""
    show(client_of(context).items.get(key), as_json=json)


@command(items, "import", "bedplate items import items.jsonl")
def import_items(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(help='Lines like {"key": "1193", "features": {...}}.')],
    json: AsJson = False,
) -> None:
    """Insert or replace catalogue entries from a JSON Lines file."""
    answer = client_of(context).items.put(_read_items(file))
    show(answer, as_json=json, done=f"{answer.accepted:,} items were accepted.")


def _read_items(file: Path) -> list[Item]:
    try:
        lines = file.read_text().splitlines()
    except OSError as error:
        raise InvalidRequest(f"{file} cannot be read: {error.strerror}.") from error
    items = []
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                items.append(Item.model_validate_json(line))
            except ValueError as error:
                reason = str(error).splitlines()[2].strip() if "\n" in str(error) else str(error)
                raise InvalidRequest(f"{file}, line {number}: {reason}") from error
    return items


@command(timelines, "show", "bedplate timelines show 42 --limit 10")
def show_timeline(
    context: typer.Context,
    user: str,
    at: Time = None,
    limit: Annotated[int, typer.Option(min=1, help="The latest so many events.")] = 20,
    surface: str | None = None,
    json: AsJson = False,
) -> None:
    """Show a user's latest events before a time, oldest first."""
    timeline = client_of(context).timelines.read(user, at=at, limit=limit, surface=surface)
    if json:
        print_json(timeline)
        return
    show_list(
        timeline.events,
        ("TIME", "SURFACE", "ACTION", "ITEM", "LABEL"),
        lambda one: (one.event_time, one.surface, one.action, one.item, one.label),
        as_json=False,
        empty=f"{user} has no events before that time.",
    )
