"""What commands share: the client, common options, and how a command is declared."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Annotated, Any, TypeVar

import typer

from bedplate.client import Client

FunctionT = TypeVar("FunctionT", bound=Callable[..., Any])

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs instead of a table.")]


@dataclass
class Session:
    """Where the command's client goes; tests give their own ``connect``."""

    url: str | None = None
    token: str | None = None
    connect: Callable[[str | None, str | None], Client] = field(default=Client)

    def client(self) -> Client:
        return self.connect(self.url, self.token)


def client_of(context: typer.Context) -> Client:
    """The client that the root options describe; closed when the command ends."""
    client: Client = context.find_object(Session).client()  # type: ignore[union-attr]  # the root callback sets it
    context.call_on_close(client.close)
    return client


def group(name: str, help: str) -> typer.Typer:
    """A group of commands; without a command it shows its help."""
    return typer.Typer(name=name, help=help, no_args_is_help=True)


def command(app: typer.Typer, name: str, example: str) -> Callable[[FunctionT], FunctionT]:
    """Declare a command; its help ends with the example."""

    def declare(function: FunctionT) -> FunctionT:
        app.command(name, epilog=f"Example: {example}", no_args_is_help=False)(function)
        return function

    return declare


def parse_time(text: str) -> datetime:
    """An ISO 8601 time with its zone."""
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not an ISO 8601 time like 2026-11-22T10:00:00Z.") from None
    if time.tzinfo is None:
        raise typer.BadParameter(f"{text!r} has no zone; write 2026-11-22T10:00:00Z.")
    return time


def parse_metrics(values: list[str] | None) -> dict[str, float]:
    """``["ne=0.87", "auc=0.75"]`` as a dictionary."""
    metrics: dict[str, float] = {}
    for value in values or ():
        name, _, number = value.partition("=")
        try:
            metrics[name] = float(number)
        except ValueError:
            raise typer.BadParameter(f"{value!r} is not of the form ne=0.87.") from None
    return metrics


Time = Annotated[
    datetime | None, typer.Option(parser=parse_time, metavar="TIME", help="E.g. 2026-11-22T10:00:00Z.")
]
Metrics = Annotated[
    list[str] | None, typer.Option("--metric", metavar="NAME=VALUE", help="Repeat for several, e.g. ne=0.87.")
]
