"""``bedplate demo``: start a platform, run the main job on it, print and write what was measured."""

from __future__ import annotations

import json
import shlex
import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console

from bedplate import Client
from bedplate.datasets import EventFormat
from bedplate.errors import InvalidRequest
from bedplate_services.demo.loop import Loop
from bedplate_services.demo.progress import Steps, process_start
from bedplate_services.demo.report import Result
from bedplate_services.demo.sources import source_of
from bedplate_services.demo.worlds import World
from bedplate_services.supervisor.command import StopSignals, announce
from bedplate_services.supervisor.platform import Platform


@dataclass(frozen=True)
class Options:
    """What ``bedplate demo`` was asked for.

    Attributes:
        dataset: ``movielens-1m``, ``synthetic`` or a directory of your own events (Parquet or CSV).
        data: the platform's data directory; None: a new temporary one, removed at the end unless ``keep``.
        keep: leave the platform running when the tables are printed, until Ctrl-C.
        port: of the API; 0 picks a free one.
        output: where the result is written as JSON.
        seeds: experts trained per variant.
        as_json: print the result as JSON instead of tables.
        events: how the files of a directory are to be read.
    """

    dataset: str = "movielens-1m"
    data: Path | None = None
    keep: bool = False
    port: int = 0
    output: Path = Path("bedplate-demo.json")
    seeds: int = 2
    as_json: bool = False
    events: EventFormat = field(default_factory=lambda: EventFormat(assume_utc=True))

    def check(self) -> None:
        """Before the minutes are spent.

        Raises:
            InvalidRequest: the result cannot be written, or the data directory is in use by an earlier run.
        """
        if self.output.is_dir() or not self.output.absolute().parent.is_dir():
            raise InvalidRequest(f"--output {self.output} is not a file in a directory that exists.")
        if self.data is not None and self.data.is_dir() and any(self.data.iterdir()):
            raise InvalidRequest(f"--data {self.data} is not empty: the demo starts from nothing.")


def run(options: Options, console: Console) -> Result:
    """Do it all; ``console`` (standard error) shows the progress, standard output gets the tables.

    Raises:
        BedplateError: something the user can mend; its detail says how.
    """
    options.check()
    source = source_of(options.dataset, options.events)
    console.print(source.terms, highlight=False)
    steps = Steps(console, process_start())
    world = source.read(steps)
    folder = options.data or Path(tempfile.mkdtemp(prefix="bedplate-demo-"))
    platform = Platform(folder, port=options.port, report=console.print)
    try:
        with steps.step("0 starting the platform", len(platform.names)) as bar:
            platform.start(became_ready=lambda _name: bar.advance(1))
        with Client(url=platform.url, token=platform.token) as client:
            result = Loop(client, world, options.seeds, steps).run()
        if not options.keep:
            with steps.step("7 stopping the platform", None):
                platform.stop()
        result.seconds, result.total_seconds = dict(steps.seconds), steps.total_seconds()
        _print(result, options.as_json)
        result.write(options.output)
        console.print(f"All figures: {options.output}", highlight=False)
        if options.keep:
            _keep(platform, console, world)
    finally:
        platform.stop()
        if options.data is None and not options.keep:
            shutil.rmtree(folder, ignore_errors=True)
    return result


def _print(result: Result, as_json: bool) -> None:
    if as_json:
        print(json.dumps(result.to_json(), sort_keys=True))
        return
    console = Console(highlight=False)
    result.print(console if console.is_terminal else Console(width=140, highlight=False))


def _keep(platform: Platform, console: Console, world: World) -> None:
    last = world.events.slice(len(world.events) - 3).to_pylist()
    user, surface = shlex.quote(last[-1]["user"]), last[-1]["surface"]
    shown = [shlex.quote(item) for item in dict.fromkeys(row["item"] for row in last)]
    stop = StopSignals()
    steps = (
        (". .venv/bin/activate", "where make demo installed it"),
        ("bedplate status", "what it holds"),
        (f"bedplate spaces search core@production/item --key {shown[-1]}", "items like this one"),
        (f"bedplate rank {surface} {user} {' '.join(shown)}", "by the surface's expert"),
    )
    announce(platform, console, False, steps)
    while not stop.asked.wait(0.5):
        platform.wait(0)
    root = platform.directory.root
    console.print(
        f"Stopped. bedplate up --data {root} goes on with it; rm -r {root} removes it.", highlight=False
    )
