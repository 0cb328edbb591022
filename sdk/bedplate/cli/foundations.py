"""``bedplate foundations``, ``versions`` and ``aliases``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bedplate.cli.options import AsJson, Metrics, Time, client_of, command, group, parse_metrics
from bedplate.cli.output import say, show, show_list, transfer_bar
from bedplate.client import Client
from bedplate.errors import InvalidRequest, NotFound
from bedplate.references import VersionReference

foundations = group("foundations", "Families of foundation models.")
versions = group("versions", "Checkpoints of foundations, e.g. core@7.")
aliases = group("aliases", "Movable names of versions, e.g. core@production.")


def add(app: typer.Typer) -> None:
    """Add the commands to ``app``."""
    for one in (foundations, versions, aliases):
        app.add_typer(one)


@command(foundations, "list", "bedplate foundations list")
def list_foundations(context: typer.Context, json: AsJson = False) -> None:
    """List the foundations."""
    show_list(
        client_of(context).foundations.list(),
        ("FOUNDATION", "TEAM", "LATEST", "DESCRIPTION", "CREATED"),
        lambda one: (one.name, one.team, one.latest_version, one.description, one.created_at),
        as_json=json,
        empty="There are no foundations yet. Create one: bedplate foundations create core --team TEAM",
    )


@command(foundations, "create", "bedplate foundations create core --team foundation")
def create_foundation(
    context: typer.Context,
    name: str,
    team: Annotated[str, typer.Option(help="The team that owns it.")],
    description: str = "",
    json: AsJson = False,
) -> None:
    """Create a foundation."""
    created = client_of(context).foundations.create(name, team, description=description)
    hint = f"Created. Publish its first version: bedplate versions publish {name} DIRECTORY"
    show(created, as_json=json, done=hint)


@command(foundations, "show", "bedplate foundations show core")
def show_foundation(context: typer.Context, name: str, json: AsJson = False) -> None:
    """Show one foundation."""
    show(client_of(context).foundations.get(name), as_json=json)


@command(versions, "list", "bedplate versions list core")
def list_versions(context: typer.Context, foundation: str, json: AsJson = False) -> None:
    """List the versions of a foundation."""
    show_list(
        client_of(context).versions.list(foundation),
        ("VERSION", "STATE", "ALIASES", "PARENT", "SPACES", "DIGEST", "CREATED"),
        lambda one: (
            one.reference,
            one.state,
            ", ".join(one.aliases),
            one.parent,
            ", ".join(one.signature.spaces),
            (one.digest or "")[:12],
            one.created_at,
        ),
        as_json=json,
        empty=f"{foundation} has no versions yet: bedplate versions publish {foundation} DIRECTORY",
    )


@command(versions, "show", "bedplate versions show core@production")
def show_version(context: typer.Context, reference: str, json: AsJson = False) -> None:
    """Show one version, by number or alias."""
    show(client_of(context).versions.get(reference), as_json=json, hide=("signature", "files"))


@command(versions, "publish", "bedplate versions publish core ./checkpoint --parent 6 --metric ne=0.87")
def publish(
    context: typer.Context,
    foundation: str,
    directory: Annotated[Path, typer.Argument(exists=True, file_okay=False)],
    parent: Annotated[int | None, typer.Option(help="The version it was trained on from.")] = None,
    window_start: Time = None,
    window_end: Time = None,
    metric: Metrics = None,
    description: str = "",
    json: AsJson = False,
) -> None:
    """Upload a checkpoint directory and make it the next version; goes on where it was interrupted."""
    if (window_start is None) != (window_end is None):
        raise InvalidRequest("Give both --window-start and --window-end, or none.")
    window = (window_start, window_end) if window_start and window_end else None
    with transfer_bar("upload") as advance:
        version = client_of(context).versions.publish(
            foundation,
            directory,
            parent=parent,
            training_window=window,
            metrics=parse_metrics(metric),
            description=description,
            progress=advance,
        )
    done = f"Published {version.reference}."
    show(version, as_json=json, done=done, hide=("signature", "files"))


@command(versions, "download", "bedplate versions download core@7 ./checkpoint")
def download(context: typer.Context, reference: str, directory: Path, json: AsJson = False) -> None:
    """Fetch a version's files and verify their digests."""
    with transfer_bar("download") as advance:
        version = client_of(context).versions.download(reference, directory, progress=advance)
    done = f"{len(version.files)} files of {version.reference} are in {directory}, verified."
    show(version, as_json=json, done=done, hide=("signature", "files"))


@command(versions, "retire", "bedplate versions retire core@3")
def retire(context: typer.Context, reference: str, json: AsJson = False) -> None:
    """Take a version out of use."""
    version = client_of(context).versions.retire(reference)
    show(version, as_json=json, done=f"{version.reference} is retired.", hide=("signature", "files"))


@command(aliases, "list", "bedplate aliases list core")
def list_aliases(context: typer.Context, foundation: str, json: AsJson = False) -> None:
    """List the aliases of a foundation."""
    show_list(
        client_of(context).aliases.list(foundation),
        ("ALIAS", "VERSION", "MOVED"),
        lambda one: (f"{one.foundation}@{one.alias}", one.version, one.moved_at),
        as_json=json,
        empty=f"{foundation} has no aliases yet. Set: bedplate aliases move {foundation}@production 1",
    )


@command(aliases, "move", 'bedplate aliases move core@production 7 --expected 6 --reason "better NE"')
def move(
    context: typer.Context,
    alias: Annotated[str, typer.Argument(help="E.g. core@production.")],
    version: Annotated[int, typer.Argument(help="The version's number.")],
    expected: Annotated[
        int | None,
        typer.Option(help="Refuse unless it points here; 0: is not set. Default: where it points now."),
    ] = None,
    reason: str = "",
    wait: Annotated[
        float, typer.Option(min=0, max=30, help="Seconds to wait for the readers to open the version.")
    ] = 10.0,
    force: Annotated[
        bool, typer.Option("--force", help="Move although readers are not ready: first requests wait.")
    ] = False,
    json: AsJson = False,
) -> None:
    """Point an alias at another version, unless somebody moves it meanwhile.

    The processes that serve its spaces open those of the new version first.
    """
    reference = VersionReference.parse(alias)
    if reference.number is not None:
        raise InvalidRequest(f"{alias!r} is a version, not an alias like core@production.")
    client = client_of(context)
    before = _points_at(client, reference) if expected is None else (expected or None)
    moved = client.aliases.move(
        reference.foundation,
        reference.selector,
        version,
        before,
        reason,
        wait_for_readers_seconds=wait,
        force=force,
    )
    done = f"{alias} moved from {before or 'nothing'} to {moved.version}."
    show(moved, as_json=json, done=done)


@command(aliases, "history", "bedplate aliases history core@production")
def history(context: typer.Context, alias: str, json: AsJson = False) -> None:
    """List the moves of an alias."""
    reference = VersionReference.parse(alias)
    show_list(
        client_of(context).aliases.history(reference.foundation, reference.selector),
        ("MOVED", "FROM", "TO", "BY", "REASON"),
        lambda one: (one.moved_at, one.from_version, one.to_version, one.moved_by, one.reason),
        as_json=json,
        empty=f"{alias} was never set. Set it: bedplate aliases move {alias} 1",
    )


def _points_at(client: Client, reference: VersionReference) -> int | None:
    try:
        return client.aliases.get(reference.foundation, reference.selector).version
    except NotFound:
        say(f"{reference} is not set yet.")
        return None
