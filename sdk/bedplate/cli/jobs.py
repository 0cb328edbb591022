"""``bedplate jobs``."""

from __future__ import annotations

from typing import Annotated

import typer

from bedplate.cli.options import AsJson, client_of, command, group
from bedplate.cli.output import job_bars, print_json, say, show, show_list
from bedplate.client import Client
from bedplate.errors import InvalidRequest
from bedplate.wire.store import Job, JobState

_STATES: dict[str, JobState] = {
    "queued": "queued",
    "running": "running",
    "succeeded": "succeeded",
    "failed": "failed",
    "cancelled": "cancelled",
}


jobs = group("jobs", "Long work the platform does by itself.")


def add(app: typer.Typer) -> None:
    """Add the commands to ``app``."""
    app.add_typer(jobs)


@command(jobs, "list", "bedplate jobs list --state running")
def list_jobs(context: typer.Context, state: str | None = None, json: AsJson = False) -> None:
    """List the jobs."""
    if state is not None and state not in _STATES:
        raise InvalidRequest(f"--state {state}: use one of {', '.join(_STATES)}.")
    show_list(
        client_of(context).jobs.list(_STATES[state] if state else None),
        ("JOB", "KIND", "SUBJECT", "STATE", "PROGRESS", "TEAM", "CREATED"),
        lambda job: (job.id, job.kind, job.subject, job.state, summary(job), job.team, job.created_at),
        as_json=json,
        empty="There are no such jobs. One starts with: bedplate spaces embed core@1/item",
    )


@command(jobs, "show", "bedplate jobs show job-80b529e5c1b94080987b0f94592bdc05")
def show_job(context: typer.Context, job: str, json: AsJson = False) -> None:
    """Show one job."""
    show(client_of(context).jobs.get(job), as_json=json)


@command(jobs, "watch", "bedplate jobs watch job-80b529e5c1b94080987b0f94592bdc05 --timeout 600")
def watch(
    context: typer.Context,
    job: str,
    timeout: Annotated[float | None, typer.Option(help="Give up after this many seconds.")] = None,
    json: AsJson = False,
) -> None:
    """Show a job's progress until it ends; fails if the job does."""
    follow(client_of(context), job, wait=True, as_json=json, timeout_seconds=timeout)


@command(jobs, "cancel", "bedplate jobs cancel job-80b529e5c1b94080987b0f94592bdc05")
def cancel(context: typer.Context, job: str, json: AsJson = False) -> None:
    """Stop a job."""
    cancelled = client_of(context).jobs.cancel(job)
    show(cancelled, as_json=json, done=f"Job {job} is {cancelled.state}.")


def summary(job: Job) -> str:
    """Every stage's share, e.g. ``embed 40%, index 0%``."""
    return ", ".join(
        f"{stage.stage} {100 * stage.done // stage.total if stage.total else 0}%" for stage in job.progress
    )


def follow(
    client: Client,
    job_id: str,
    *,
    wait: bool,
    as_json: bool,
    timeout_seconds: float | None = None,
) -> None:
    """Show the progress of a job until it ends and print it, or, without waiting, print its id.

    Raises:
        JobFailed: with the reason.
        Unavailable: it still runs after ``timeout_seconds``.
    """
    if not wait:
        if as_json:
            print_json({"job": job_id})
        else:
            say(f"Started job {job_id}. Watch it: bedplate jobs watch {job_id}")
        return
    with job_bars() as update:
        job = client.jobs.watch(job_id, update, timeout_seconds=timeout_seconds)
    show(job, as_json=as_json, done=f"Job {job.id} ({job.kind} of {job.subject}) succeeded.")
