"""What the foundation team does: train a version on all surfaces, publish it, embed it."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import pyarrow as pa

from bedplate import Client
from bedplate.errors import InternalError
from bedplate.wire.registry import Version
from bedplate.wire.store import EmbedRequest, IndexKind, IndexSpecification
from bedplate_modeling.checkpoints import save_checkpoint
from bedplate_modeling.config import FoundationConfig
from bedplate_modeling.events import Catalogue, Events
from bedplate_modeling.foundation import FoundationModel
from bedplate_modeling.training import TrainingProgress, train_foundation
from bedplate_services.demo.progress import Bar
from bedplate_services.demo.stage import FOUNDATION
from bedplate_services.demo.worlds import from_microseconds

SPACES = ("item", "user")


@dataclass(frozen=True)
class Data:
    """What the foundation team reads back from the platform to train on."""

    events: Events
    catalogue: Catalogue


def read_data(client: Client, start: int, end: int) -> Data:
    """Events with start <= event_time < end (microseconds) of all surfaces, and the catalogue, by the SDK."""
    table = client.events.scan(start=from_microseconds(start), end=from_microseconds(end))
    items = {item.key: item.features for item in client.items.scan()}
    return Data(events_of(table), Catalogue.from_items(items))


def events_of(table: pa.Table) -> Events:
    """The bulk event columns as the trainer takes them."""
    return Events.from_columns(
        user=table["user"].to_pylist(),
        item=table["item"].to_pylist(),
        action=table["action"].to_pylist(),
        surface=table["surface"].to_pylist(),
        event_time_ms=table["event_time"].cast(pa.int64()).to_numpy() // 1000,
        label=table["label"].to_numpy(zero_copy_only=False),
    )


def train(data: Data, config: FoundationConfig, seed: int, advance: Callable[[int], None]) -> FoundationModel:
    """Train, telling ``advance`` how many further labelled positions were seen."""
    seen = 0

    def watch(progress: TrainingProgress) -> None:
        nonlocal seen
        advance(progress.done - seen)
        seen = progress.done

    return train_foundation(data.events, data.catalogue, config, seed=seed, progress=watch)


def publish(
    client: Client,
    model: FoundationModel,
    bar: Bar,
    *,
    window: tuple[int, int],
    parent: int | None,
    description: str,
) -> Version:
    """Save the checkpoint, upload it in parts and finalise the version."""
    with tempfile.TemporaryDirectory(prefix="bedplate-checkpoint-") as folder:
        save_checkpoint(Path(folder), model)
        return client.versions.publish(
            FOUNDATION,
            Path(folder),
            parent=parent,
            training_window=(from_microseconds(window[0]), from_microseconds(window[1])),
            description=description,
            progress=lambda _file, done, total: bar.reach(done, total),
        )


@dataclass(frozen=True)
class Embedded:
    """One space's embed job, and what came of it. ``seconds`` run from the job's start to its publication."""

    reference: str
    rows: int
    seconds: float
    recall_at_10: float
    index_kind: str


def embed(client: Client, reference: str, as_of: datetime, bar: Bar) -> Embedded:
    """Embed, index and publish one space, waiting for the job and showing all of its stages.

    Raises:
        BedplateError: the job failed; its reason is in the detail.
    """
    kind: IndexKind = "hnsw" if reference.endswith("/item") else "auto"  # items are searched, users looked up
    request = EmbedRequest(as_of=as_of, index=IndexSpecification(kind=kind, recall_target=0.99))
    job = client.jobs.watch(client.spaces.embed(reference, request), bar.follow)
    snapshot = client.spaces.snapshots(reference)[0]
    if job.started_at is None or job.finished_at is None or snapshot.recall_at_10 is None:
        raise InternalError(f"job {job.id} has finished, but has no times or no measured recall")
    seconds = (job.finished_at - job.started_at).total_seconds()
    return Embedded(reference, snapshot.rows, seconds, snapshot.recall_at_10, snapshot.index_kind)
