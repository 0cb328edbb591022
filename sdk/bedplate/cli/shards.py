"""``bedplate shards``."""

from __future__ import annotations

from typing import Annotated

import typer

from bedplate.cli.options import AsJson, client_of, command, group
from bedplate.cli.output import show_list
from bedplate.wire.shards import ALL_SPACES

shards = group("shards", "Which store node serves which shard of the spaces.")
_COLUMNS = ("SPACE", "SHARD", "NODE", "ASSIGNED")


def add(app: typer.Typer) -> None:
    """Add the commands to ``app``."""
    app.add_typer(shards)


@command(shards, "list", "bedplate shards list")
def list_shards(context: typer.Context, json: AsJson = False) -> None:
    """List the assignments."""
    show_list(
        client_of(context).shards.list(),
        _COLUMNS,
        lambda one: (one.space, one.shard, one.node, one.assigned_at),
        as_json=json,
        empty="No shard is assigned to a store node: every API process serves all spaces whole.",
    )


@command(shards, "moves", "bedplate shards moves --limit 20")
def moves(
    context: typer.Context,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many, newest first.")] = 100,
    json: AsJson = False,
) -> None:
    """List the last moves of shards."""
    show_list(
        client_of(context).shards.moves(limit),
        ("SPACE", "SHARD", "FROM", "TO", "BY", "AT"),
        lambda one: (one.space, one.shard, one.from_node, one.to_node, one.moved_by, one.moved_at),
        as_json=json,
        empty="No shard was ever assigned.",
    )


@command(shards, "assign", "bedplate shards assign node-2 0 3 --expected node-1")
def assign(
    context: typer.Context,
    node: Annotated[str, typer.Argument(help="The store node that is to serve them; - for nobody.")],
    numbers: Annotated[list[int], typer.Argument(metavar="SHARD...", help="Which shards.")],
    expected: Annotated[
        str | None, typer.Option(help="The node that has them now. Default: nobody has.")
    ] = None,
    space: Annotated[str, typer.Option(help="One space, e.g. core@7/item. Default: all.")] = ALL_SPACES,
    json: AsJson = False,
) -> None:
    """Give shards to a store node, if all of them are where you believe; requests go on meanwhile."""
    show_list(
        client_of(context).shards.assign(numbers, None if node == "-" else node, expected, space=space),
        _COLUMNS,
        lambda one: (one.space, one.shard, one.node, one.assigned_at),
        as_json=json,
        empty="They are assigned to nobody now.",
    )
