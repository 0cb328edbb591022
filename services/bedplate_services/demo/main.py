"""``bedplate demo``: start a platform, run the main job on it, print and write what was measured."""

from __future__ import annotations

import json
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from bedplate import Client
from bedplate_services.demo import movielens, synthetic
from bedplate_services.demo.directory import read_directory
from bedplate_services.demo.loop import Loop
from bedplate_services.demo.progress import Steps
from bedplate_services.demo.report import Result
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
    """

    dataset: str = "movielens-1m"
    data: Path | None = None
    keep: bool = False
    port: int = 0
    output: Path = Path("bedplate-demo.json")
    seeds: int = 2
    as_json: bool = False


def run(options: Options, console: Console) -> Result:
    """Do it all; ``console`` (standard error) shows the progress, standard output gets the tables.

    Raises:
        BedplateError: something the user can mend; its detail says how.
    """
    steps = Steps(console)
    with steps.step("0 reading the data", 1):
        world = load_world(options.dataset)
    console.print(world.terms, highlight=False)
    folder = options.data or Path(tempfile.mkdtemp(prefix="bedplate-demo-"))
    platform = Platform(folder, port=options.port, report=console.print)
    try:
        with steps.step("0 starting the platform", len(platform.names)) as advance:
            platform.start(became_ready=lambda _name: advance(1))
        with Client(url=platform.url, token=platform.token) as client:
            result = Loop(client, world, options.seeds, steps).run()
        result.write(options.output)
        _print(result, options.as_json)
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
    last = world.events.slice(len(world.events) - 1).to_pylist()[0]
    item, user, surface = last["item"], last["user"], last["surface"]
    stop = StopSignals()
    steps = (
        ("bedplate status", "what it holds"),
        (f"bedplate spaces search core@production/item --key '{item}'", "items like this one"),
        (f"bedplate rank {surface} '{user}' '{item}'", "by the surface's expert"),
    )
    announce(platform, console, False, steps)
    while not stop.asked.wait(0.5):
        platform.wait(0)


def load_world(dataset: str) -> World:
    """The world that a name or a directory stands for.

    Raises:
        InvalidRequest: a directory without readable events.
    """
    if dataset == "movielens-1m":
        return movielens.load()
    if dataset == "synthetic":
        return synthetic.make()
    return read_directory(Path(dataset))
