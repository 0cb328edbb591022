"""Which of several things a command line names."""

from __future__ import annotations

from collections.abc import Callable, Collection

import typer


def among(known: Collection[str], what: str) -> Callable[[list[str] | None], list[str]]:
    """A typer callback that lets only names in ``known`` through; none at all means all of them."""

    def check(given: list[str] | None) -> list[str]:
        for name in given or []:
            if name not in known:
                raise typer.BadParameter(f"no {what} is called {name!r}; there are {', '.join(known)}.")
        return [name for name in known if not given or name in given]

    return check
