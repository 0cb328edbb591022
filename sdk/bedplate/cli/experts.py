"""``bedplate experts``, ``training-sets`` and ``evaluations``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bedplate.cli.options import AsJson, Metrics, Time, client_of, command, group, parse_metrics
from bedplate.cli.output import job_bars, print_json, say, show, show_list, transfer_bar
from bedplate.client.answers import build
from bedplate.errors import InvalidRequest, NotFound
from bedplate.references import VersionReference
from bedplate.wire.store import TrainingSetCreate

experts = group("experts", "Surface models, each version pinned to a foundation version.")
training_sets = group("training-sets", "Impressions, logged TAE and outcomes, joined point in time.")
evaluations = group("evaluations", "What models were measured to be worth.")


def add(app: typer.Typer) -> None:
    """Add the commands to ``app``."""
    for one in (experts, training_sets, evaluations):
        app.add_typer(one)


@command(experts, "list", "bedplate experts list --surface feed")
def list_experts(context: typer.Context, surface: str | None = None, json: AsJson = False) -> None:
    """List the experts."""
    show_list(
        client_of(context).experts.list(surface),
        ("EXPERT", "SURFACE", "LATEST", "SERVING", "DESCRIPTION", "CREATED"),
        lambda one: (
            one.name,
            one.surface,
            one.latest_version,
            one.serving_version,
            one.description,
            one.created_at,
        ),
        as_json=json,
        empty="There are no experts yet. Create one: bedplate experts create feed-ranker --surface feed",
    )


@command(experts, "create", "bedplate experts create feed-ranker --surface feed")
def create_expert(
    context: typer.Context,
    name: str,
    surface: Annotated[str, typer.Option(help="The surface it ranks.")],
    description: str = "",
    json: AsJson = False,
) -> None:
    """Create an expert."""
    expert = client_of(context).experts.create(name, surface, description=description)
    show(expert, as_json=json, done="Created.")


@command(experts, "show", "bedplate experts show feed-ranker@3")
def show_expert(context: typer.Context, name: str, json: AsJson = False) -> None:
    """Show an expert and its versions, or one version."""
    client = client_of(context)
    if "@" in name:
        show(client.experts.get_version(name), as_json=json, hide=("signature", "files"))
        return
    expert, versions = client.experts.get(name), client.experts.versions(name)
    if json:
        print_json({**expert.model_dump(mode="json"), "versions": versions})
        return
    show(expert, as_json=False)
    show_list(
        versions,
        ("VERSION", "STATE", "PINNED", "SPACE", "TRAINING SET", "CREATED"),
        lambda one: (
            f"{one.expert}@{one.version}",
            one.state,
            one.pinned_version,
            one.pinned_space,
            one.training_set,
            one.created_at,
        ),
        as_json=False,
        empty=f"It has no versions yet. Publish one: bedplate experts publish {name} DIRECTORY",
    )


@command(
    experts, "publish", "bedplate experts publish feed-ranker ./expert --pin core@7/tae --metric ne=0.86"
)
def publish(
    context: typer.Context,
    expert: str,
    directory: Annotated[Path, typer.Argument(exists=True, file_okay=False)],
    pin: Annotated[str | None, typer.Option(help="Version and space it reads, e.g. core@7/tae.")] = None,
    training_set: Annotated[str | None, typer.Option(help="Id of what it was trained on.")] = None,
    metric: Metrics = None,
    description: str = "",
    json: AsJson = False,
) -> None:
    """Upload a checkpoint directory as the expert's next version; goes on where it was interrupted."""
    version, _, space = (pin or "").partition("/")
    if pin and not space:
        raise InvalidRequest(f"--pin {pin}: name the space too, e.g. {pin}/tae.")
    with transfer_bar("upload") as advance:
        published = client_of(context).experts.publish(
            expert,
            directory,
            pinned_version=version or None,
            pinned_space=space or None,
            training_set=training_set,
            metrics=parse_metrics(metric),
            description=description,
            progress=advance,
        )
    reference = f"{published.expert}@{published.version}"
    done = f"Published {reference}. Let it serve: bedplate experts serve {reference}"
    show(published, as_json=json, done=done, hide=("signature", "files"))


@command(experts, "serve", "bedplate experts serve feed-ranker@3 --expected 2")
def serve(
    context: typer.Context,
    reference: Annotated[str, typer.Argument(help="E.g. feed-ranker@3.")],
    expected: Annotated[
        int | None,
        typer.Option(help="Refuse unless this version serves; 0: none does. Default: the present one."),
    ] = None,
    reason: str = "",
    json: AsJson = False,
) -> None:
    """Let a version answer the surface's ranking requests."""
    parsed = VersionReference.parse(reference)
    if parsed.number is None:
        raise InvalidRequest(f"{reference!r}: write a version number, e.g. {parsed.foundation}@3.")
    client = client_of(context)
    name = parsed.foundation
    before = client.experts.get(name).serving_version if expected is None else (expected or None)
    expert = client.experts.serve(name, parsed.number, expected=before, reason=reason)
    show(expert, as_json=json, done=f"{reference} serves {expert.surface}.")


@command(
    training_sets,
    "create",
    "bedplate training-sets create week-47 --surface feed --version core@1 --version core@2 "
    "--start 2026-11-16T00:00:00Z --end 2026-11-23T00:00:00Z",
)
def create_training_set(
    context: typer.Context,
    name: str,
    surface: Annotated[str, typer.Option(help="Whose impressions.")],
    version: Annotated[list[str], typer.Option(help="Whose TAE; repeat for several.")],
    start: Time = None,
    end: Time = None,
    task: str = "label",
    history_length: Annotated[int, typer.Option(min=0, max=1024)] = 16,
    attribution_end: Time = None,
    wait: Annotated[bool, typer.Option(help="Stay until it is ready.")] = True,
    json: AsJson = False,
) -> None:
    """Join impressions, logged TAE and outcomes of a window."""
    if start is None or end is None:
        raise InvalidRequest("Give --start and --end of the window.")
    request = build(
        TrainingSetCreate,
        name=name,
        surface=surface,
        versions=version,
        window_start=start,
        window_end=end,
        task=task,
        history_length=history_length,
        attribution_end=attribution_end,
    )
    client = client_of(context)
    made = client.training_sets.create(request)
    if wait:
        say(f"Training set {made.id} is made by job {made.job}.")
        with job_bars() as update:
            made = client.training_sets.wait(made.id, update)
    done = f"Read it: bedplate training-sets download {made.id} DIRECTORY"
    show(made, as_json=json, done=done)


@command(training_sets, "list", "bedplate training-sets list --surface feed")
def list_sets(context: typer.Context, surface: str | None = None, json: AsJson = False) -> None:
    """List the training sets."""
    show_list(
        client_of(context).training_sets.list(surface),
        ("ID", "NAME", "SURFACE", "VERSIONS", "STATE", "ROWS", "REQUESTS", "CREATED"),
        lambda one: (
            one.id,
            one.name,
            one.surface,
            ", ".join(one.versions),
            one.state,
            one.rows,
            one.requests,
            one.created_at,
        ),
        as_json=json,
        empty="There are no training sets yet. Make one: bedplate training-sets create --help",
    )


@command(training_sets, "show", "bedplate training-sets show ts-6c5fe9f269c74b329f20818438fe747e")
def show_set(context: typer.Context, training_set: str, json: AsJson = False) -> None:
    """Show one training set."""
    show(client_of(context).training_sets.get(training_set), as_json=json)


@command(
    training_sets, "download", "bedplate training-sets download ts-6c5fe9f269c74b329f20818438fe747e ./week-47"
)
def download(context: typer.Context, training_set: str, directory: Path, json: AsJson = False) -> None:
    """Fetch the Arrow files and verify their digests."""
    with transfer_bar("download") as advance:
        data = client_of(context).training_sets.read(training_set, directory, progress=advance)
    done = f"{len(data):,} rows of {data.requests.num_rows:,} requests are in {directory}, verified."
    show(data.training_set, as_json=json, done=done)


@command(evaluations, "list", "bedplate evaluations list --surface feed")
def list_evaluations(
    context: typer.Context,
    subject: Annotated[str | None, typer.Option(help="E.g. core@2 or feed-ranker@3.")] = None,
    surface: str | None = None,
    task: str | None = None,
    json: AsJson = False,
) -> None:
    """List the evaluations."""
    show_list(
        client_of(context).evaluations.list(subject=subject, surface=surface, task=task),
        ("SUBJECT", "SURFACE", "TASK", "VARIANT", "READS", "SEED", "ROWS", "METRICS", "CREATED"),
        lambda one: (
            one.subject,
            one.surface,
            one.task,
            one.variant,
            "\n".join(f"{read.space} {read.storage}" for read in one.reads) or None,
            one.seed,
            one.rows,
            " ".join(f"{name}={value:.4f}" for name, value in sorted(one.metrics.items())),
            one.created_at,
        ),
        as_json=json,
        empty="There are no such evaluations. Record them with client.evaluations.record(...).",
    )


@command(evaluations, "transfer-ratio", "bedplate evaluations transfer-ratio feed core@1 core@2")
def transfer_ratio(
    context: typer.Context,
    surface: str,
    from_version: str,
    to_version: str,
    task: str = "label",
    json: AsJson = False,
) -> None:
    """Show how much of a foundation's gain arrives in the surface's experts."""
    ratios = client_of(context).transfer_ratio(surface, from_version, to_version, task)
    if not ratios and not json:
        raise NotFound(f"No expert of {surface} was evaluated on both {from_version} and {to_version}.")
    show_list(
        ratios,
        ("EXPERT", "VARIANT", "EXPERT NE", "FOUNDATION NE", "RATIO", "STD", "SEEDS"),
        lambda one: (
            one.expert,
            one.variant,
            f"{one.expert_ne_from:.4f} -> {one.expert_ne_to:.4f}",
            f"{one.foundation_ne_from:.4f} -> {one.foundation_ne_to:.4f}",
            one.reason or "-" if one.ratio is None else one.ratio,
            one.ratio_std,
            one.seeds,
        ),
        as_json=json,
        empty="",
    )
