"""``bedplate status`` and ``bedplate rank``."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from bedplate.cli.jobs import summary
from bedplate.cli.options import AsJson, Time, client_of, command
from bedplate.cli.output import print_json, print_table, say

top = typer.Typer()


def add(app: typer.Typer) -> None:
    """Add the commands to ``app``."""
    app.add_typer(top)


@command(top, "status", "bedplate status")
def status(context: typer.Context, json: AsJson = False) -> None:
    """Show where the platform answers, who we are, and what it holds."""
    client = client_of(context)
    endpoints, caller = client.endpoints(), client.whoami()
    aliases = {
        foundation.name: {alias.alias: alias.version for alias in client.aliases.list(foundation.name)}
        for foundation in client.foundations.list()
    }
    running = client.jobs.list("running") + client.jobs.list("queued")
    spaces = client.spaces.list()
    found: dict[str, Any] = {
        "url": client.url,
        "version": endpoints.version,
        "inference": endpoints.inference,
        "team": caller.team,
        "role": caller.role,
        "foundations": aliases,
        "spaces": spaces,
        "jobs": running,
    }
    if json:
        print_json(found)
        return
    print_table(("", ""), [(name, found[name]) for name in ("url", "inference", "version", "team", "role")])
    for name, pointing in aliases.items():
        text = ", ".join(f"{alias} -> {version}" for alias, version in sorted(pointing.items()))
        print_table(("FOUNDATION", "ALIASES"), [(name, text)])
    if spaces:
        rows = [(one.reference, one.rows, one.snapshot) for one in spaces]
        print_table(("SPACE", "ROWS", "SNAPSHOT"), rows)
    if running:
        print_table(
            ("JOB", "KIND", "SUBJECT", "PROGRESS"),
            [(job.id, job.kind, job.subject, summary(job)) for job in running],
        )
    if not aliases:
        say("There is no foundation yet. Begin: bedplate foundations create; or see it all: bedplate demo")


@command(top, "rank", "bedplate rank feed 42 1193 661 914")
def rank(
    context: typer.Context,
    surface: str,
    user: str,
    candidates: list[str],
    at: Time = None,
    expert: Annotated[str | None, typer.Option(help="Default: the surface's only serving one.")] = None,
    log: Annotated[bool, typer.Option(help="Write the impressions to the log.")] = False,
    json: AsJson = False,
) -> None:
    """Rank candidates for a user by the surface's expert."""
    answer = client_of(context).rank(surface, user, candidates, at=at, expert=expert, log=log)
    if json:
        print_json(answer)
        return
    say(f"{answer.expert} on {answer.foundation_version or 'no foundation'}, request {answer.request_id}")
    rows = [
        (rank, candidates[index], answer.scores[index]) for rank, index in enumerate(answer.order, start=1)
    ]
    print_table(("RANK", "ITEM", "SCORE"), rows)
