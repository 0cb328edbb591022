"""An embed job by the worker: against the bare model's forward pass, histories in memory."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch

from bedplate import Client
from bedplate.errors import InternalError
from bedplate.wire.store import EmbedRequest, Item, Job
from bedplate_modeling.checkpoints import save_checkpoint
from bedplate_modeling.config import FoundationConfig
from bedplate_modeling.events import Catalogue
from bedplate_modeling.foundation import FoundationModel
from bedplate_modeling.runtime import FoundationRuntime, UserRequest
from bedplate_modeling.training import build_vocabulary
from bedplate_services.demo import synthetic
from bedplate_services.demo.foundations import events_of
from bedplate_services.demo.worlds import World
from benchmarks.figures import Figure, Sample, interleave
from benchmarks.workbench import TEAM, Workbench

NAME = "embed"
FOUNDATION = "embed"
SPACE = f"{FOUNDATION}@1/user"
ITEMS = 500
EVENTS_PER_USER = 60
_EVENTS_AT_ONCE = 50_000
_TOLERANCE = 1e-3


@dataclass(frozen=True)
class Subject:
    """The model, the same users as requests, and the time they are embedded for."""

    runtime: FoundationRuntime
    requests: list[UserRequest]
    as_of: datetime


def run(bench: Workbench) -> list[Figure]:
    """Users a second from the job's start to its publication: histories read, model run, segment written,
    index built, recall measured and snapshot published."""
    users = bench.scale.of(3000, 600)
    bench.say(f"embed: sending {users * EVENTS_PER_USER:,} events of {users:,} users ...")
    world = synthetic.make(users=users, items=ITEMS, events_per_user=EVENTS_PER_USER)
    subject = _stage(bench.client, world, bench.folder / "embed")
    bench.say("embed: running jobs ...")
    pairs = interleave(
        min(3, bench.scale.rounds), lambda _: _job(bench.client, subject), lambda _: _forward(subject)
    )
    _check(bench.client, subject)
    return [
        pairs.figure(
            NAME,
            f"embed job, {users:,} users x {EVENTS_PER_USER} events, dim {subject.runtime.dim}",
            "users/s",
            f"bare forward, {torch.get_num_threads()} threads",
        )
    ]


def _stage(client: Client, world: World, folder: Path) -> Subject:
    """Send the world and publish a model that has learned nothing: its forward pass costs the same."""
    for surface in world.surfaces:
        client.surfaces.create(surface, team=TEAM)
    client.items.put([Item(key=key, features=dict(features)) for key, features in world.items.items()])
    for first in range(0, len(world.events), _EVENTS_AT_ONCE):
        client.events.send(world.events.slice(first, _EVENTS_AT_ONCE))
    events = events_of(world.events)
    vocabulary, table = build_vocabulary(events, Catalogue.from_items(world.items))
    torch.manual_seed(0)
    model = FoundationModel(FoundationConfig.small(), vocabulary, table)
    save_checkpoint(folder, model)
    client.foundations.create(FOUNDATION, team=TEAM)
    client.versions.publish(FOUNDATION, folder)
    runtime = FoundationRuntime(model)
    at_ms = int(events.event_time_ms.max()) + 1
    requests = [
        UserRequest(user, at_ms, events.history(user, at_ms, runtime.max_history))
        for user in sorted(events.user.keys)
    ]
    return Subject(runtime, requests, datetime.fromtimestamp(at_ms / 1000, UTC))


def _job(client: Client, subject: Subject) -> Sample:
    job = client.jobs.watch(client.spaces.embed(SPACE, EmbedRequest(as_of=subject.as_of)), poll_seconds=0.2)
    return Sample.of(len(subject.requests), job_seconds(job))


def _forward(subject: Subject) -> Sample:
    began = time.perf_counter()
    subject.runtime.embed_users(subject.requests)
    return Sample.of(len(subject.requests), time.perf_counter() - began)


def _check(client: Client, subject: Subject) -> None:
    """A wrong answer is not worth measuring."""
    some = subject.requests[:100]
    answer = client.spaces.lookup(SPACE, [request.user for request in some])
    expected = subject.runtime.embed_users(some)
    if not answer.found.all() or np.abs(answer.vectors - expected).max() > _TOLERANCE:
        raise InternalError("the embed job's vectors are not those of the model")


def job_seconds(job: Job) -> float:
    """From the first partition's start to the end of the last."""
    if job.started_at is None or job.finished_at is None:
        raise InternalError(f"job {job.id} has ended without times")
    return (job.finished_at - job.started_at).total_seconds()
