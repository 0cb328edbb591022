"""What ``bedplate up`` shows and when it ends."""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Sequence
from types import FrameType

import typer
from rich.console import Console
from rich.markup import escape
from rich.panel import Panel
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from bedplate.errors import BedplateError
from bedplate_services.supervisor.data_directory import DataDirectory
from bedplate_services.supervisor.platform import Platform


def run_platform(platform: Platform, *, as_json: bool) -> None:
    """Start the platform, say where it answers, and keep it running until SIGINT or SIGTERM.

    Raises:
        typer.Exit: with status 1, after the reason was printed, when it cannot start or a child gives up.
    """
    console = Console(stderr=True)
    stop = StopSignals()
    try:
        _start(platform, console, stop)
        announce(platform, console, as_json)
        while not stop.asked.wait(0.5):
            platform.wait(0)  # raises when a child gave up
    except Interrupted:
        console.print("Interrupted while starting.")
    except BedplateError as error:
        console.print(f"[bold red]{error.title}.[/]", highlight=False)
        console.print(error.detail, style="red", markup=False, highlight=False)
        raise typer.Exit(1) from error
    finally:
        platform.stop()
    console.print("Stopped. Everything acknowledged is on disk; `bedplate up` goes on from here.")


class Interrupted(BaseException):
    """A signal came while starting; not an Exception, so that nothing on the way handles it."""


class StopSignals:
    """SIGINT, SIGTERM and SIGHUP set ``asked``; while ``starting`` the first also breaks off the start."""

    def __init__(self) -> None:
        self.asked = threading.Event()
        self.starting = False
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._handle)

    def _handle(self, _number: int, _frame: FrameType | None) -> None:
        self.asked.set()
        if self.starting:
            self.starting = False
            raise Interrupted


def _start(platform: Platform, console: Console, stop: StopSignals) -> None:
    columns = (
        SpinnerColumn(finished_text="[green]✓[/]"),
        TextColumn("{task.description}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console) as progress:
        bars = {name: progress.add_task(name, total=1) for name in platform.names}
        stop.starting = True
        platform.start(became_ready=lambda name: progress.update(bars[name], completed=1))
        stop.starting = False


NEXT_STEPS = (
    ("bedplate status", "what it holds"),
    ("bedplate demo", "the whole loop on MovieLens-1M, on a platform of its own"),
)


def announce(
    platform: Platform,
    console: Console,
    as_json: bool,
    next_steps: Sequence[tuple[str, str]] = NEXT_STEPS,
) -> None:
    """Say where the platform answers and what to do next: commands, and what each is for."""
    directory = platform.directory
    if as_json:
        document = {
            "url": platform.url,
            "inference_url": platform.inference_url,
            "data": str(directory.root),
            "token_file": str(directory.admin_token),
            "processes": platform.pids(),
        }
        print(json.dumps(document), flush=True)
        return
    if directory.root != DataDirectory.at(None).root:
        next_steps = ((f"export BEDPLATE_DATA={directory.root}", "so that they find this one"), *next_steps)
    width = max(len(command) for command, _ in next_steps)
    engines = "".join(
        f"{name.replace('_', ' '):<20}{escape(url)}\n" for name, url in platform.engines.shown().items()
    )
    steps = "\n".join(f"  {command:<{width}}   {purpose}" for command, purpose in next_steps)
    console.print(
        Panel(
            f"registry and store  [bold]{platform.url}[/]\n"
            f"inference           [bold]{platform.inference_url}[/]\n"
            f"documentation       {platform.url}/docs   (offline: {platform.url}/openapi.json)\n"
            f"admin token         {directory.admin_token}   (the SDK and the command line find it)\n"
            f"logs                {directory.logs}\n"
            f"{engines}\n"
            f"Next, in another terminal:\n{steps}\n"
            "Ctrl-C stops it; what was acknowledged stays.",
            title="Bedplate is up",
            expand=False,
        )
    )
