"""Commands that other packages bring, found by the entry point group ``bedplate.commands``."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from importlib.metadata import EntryPoint, entry_points
from typing import Any, TypeVar

import typer

from bedplate.errors import Unavailable

GROUP = "bedplate.commands"
FunctionT = TypeVar("FunctionT", bound=Callable[..., Any])
_EXAMPLE = "bedplate_example"
_EXTRA = "pip install 'bedplate[server,cpu]'"


def add(app: typer.Typer, found: Iterable[EntryPoint] | None = None) -> None:
    """Add every announced command; one that cannot be loaded stays listed and says what to install."""
    for entry in sorted(entry_points(group=GROUP) if found is None else found, key=lambda one: one.name):
        try:
            function = entry.load()
        except ImportError as error:
            function = _missing(entry.name, error)
        shown = getattr(function, _EXAMPLE, f"bedplate {entry.name}")
        app.command(entry.name, epilog=f"Example: {shown}")(_guarded(entry.name, function))


def example(text: str) -> Callable[[FunctionT], FunctionT]:
    """Give an announced command the example that its help ends with."""

    def declare(function: FunctionT) -> FunctionT:
        setattr(function, _EXAMPLE, text)
        return function

    return declare


def _needs(name: str, error: ImportError) -> Unavailable:
    return Unavailable(f"`bedplate {name}` needs more than the SDK ({error}). Install it: {_EXTRA}")


def _missing(name: str, error: ImportError) -> Callable[[], None]:
    def command() -> None:
        raise _needs(name, error)

    command.__doc__ = f"Needs more than the SDK: {_EXTRA}"
    return command


def _guarded(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """The command, with the advice above where it imports a missing library only when it runs."""

    @functools.wraps(function)
    def command(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except ModuleNotFoundError as error:
            raise _needs(name, error) from error

    return command
