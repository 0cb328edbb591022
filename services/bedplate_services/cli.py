"""The commands that need more than the ground floor; the SDK's command line finds them by entry point.

The imports in the functions are deliberate: ``bedplate`` loads this module for every command, and the
platform's libraries would cost each of them half a second.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from bedplate.cli.plugins import example


@example("bedplate up --data ./platform --port 0 --api-processes 8 --workers 2")
def up(
    data: Annotated[
        Path | None, typer.Option(help="Where everything is kept. Default: $BEDPLATE_DATA or ~/.bedplate.")
    ] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Registry and store; 0: any free port.")] = 8700,
    inference_port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Inference. Default: the next port; 0: any free one.")
    ] = None,
    api_processes: Annotated[
        int,
        typer.Option(
            min=1, max=256, envvar="BEDPLATE_API_PROCESSES", help="API processes that share the port."
        ),
    ] = 1,
    store_nodes: Annotated[
        int,
        typer.Option(
            min=0,
            max=64,
            envvar="BEDPLATE_STORE_NODES",
            help="Processes that serve the spaces cut into shards; 0: the API does.",
        ),
    ] = 0,
    workers: Annotated[
        int,
        typer.Option(
            min=1, max=64, envvar="BEDPLATE_WORKERS", help="Worker processes; each does one part of a job."
        ),
    ] = 1,
    host: Annotated[str, typer.Option(help="The address to listen on; loopback by default.")] = "127.0.0.1",
    json: Annotated[bool, typer.Option("--json", help="Print the addresses as one line of JSON.")] = False,
) -> None:
    """Start the whole platform on this machine and keep it running until Ctrl-C.

    It keeps everything in files, but for what BEDPLATE_REGISTRY_DATABASE_URL, BEDPLATE_STORE_DATABASE_URL,
    BEDPLATE_OBJECTS_URL and BEDPLATE_BROKER_URL name: PostgreSQL, S3, Redis or RabbitMQ.
    """
    from bedplate_services.supervisor.command import run_platform
    from bedplate_services.supervisor.engines import engine_settings
    from bedplate_services.supervisor.platform import Platform

    next_port = port + 1 if port else 0
    platform = Platform(
        data,
        host=host,
        port=port,
        inference_port=next_port if inference_port is None else inference_port,
        api_processes=api_processes,
        store_nodes=store_nodes,
        workers=workers,
        environment=engine_settings(os.environ),
        report=lambda message: typer.echo(message, err=True),
    )
    run_platform(platform, as_json=json)


@example("bedplate demo --dataset ./events --column user=user_id --time-unit s --seeds 1 --keep")
def demo(
    dataset: Annotated[
        str, typer.Option(help="movielens-1m, synthetic, or a directory of your own events (Parquet or CSV).")
    ] = "movielens-1m",
    data: Annotated[
        Path | None,
        typer.Option(help="The platform's data directory. Default: a new one, removed at the end."),
    ] = None,
    keep: Annotated[bool, typer.Option(help="Leave the platform running and print its URLs.")] = False,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Registry and store; 0: any free port.")] = 0,
    output: Annotated[Path, typer.Option(help="Where the result is written.")] = Path("bedplate-demo.json"),
    seeds: Annotated[int, typer.Option(min=1, help="Experts trained per variant.")] = 2,
    json: Annotated[bool, typer.Option("--json", help="Print the result as JSON instead of tables.")] = False,
    column: Annotated[
        list[str] | None,
        typer.Option(metavar="OURS=THEIRS", help="A column's name in DIR, where it differs."),
    ] = None,
    time_unit: Annotated[
        str, typer.Option(metavar="[iso8601|s|ms|us]", help="Of times in DIR: text, or epoch numbers.")
    ] = "iso8601",
) -> None:
    """Run the main job end to end and print what the foundation is worth on each surface."""
    from rich.console import Console

    from bedplate.datasets import EventFormat, TimeUnit
    from bedplate.errors import InvalidRequest
    from bedplate_services.demo.main import Options, run

    pairs = [one.partition("=") for one in column or []]
    units: dict[str, TimeUnit] = {"iso8601": "iso8601", "s": "s", "ms": "ms", "us": "us"}
    if time_unit not in units or not all(mark for _, mark, _ in pairs):
        raise InvalidRequest("Write --time-unit s, ms or us, and --column OURS=THEIRS, e.g. user=user_id.")
    how = EventFormat(units[time_unit], True, {ours: theirs for ours, _, theirs in pairs})
    run(Options(dataset, data, keep, port, output, seeds, json, how), Console(stderr=True))
