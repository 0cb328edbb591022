"""Training of the foundation model."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch

from bedplate.errors import InvalidRequest
from bedplate_modeling.config import FoundationConfig
from bedplate_modeling.events import Catalogue, Events
from bedplate_modeling.foundation import FoundationModel
from bedplate_modeling.losses import foundation_loss
from bedplate_modeling.vocabulary import Vocabulary, feature_table
from bedplate_modeling.windows import BatchMaker, EncodedEvents, Windows, epochs


class TrainingDataInvalid(InvalidRequest):
    """There is nothing to learn from: no events, no labels, or labels of one class only."""

    code = "training_data_invalid"
    title = "The training data cannot train a model"


@dataclass(frozen=True)
class TrainingProgress:
    """State of a training run.

    Attributes:
        done, total: labelled positions seen, and to be seen over all epochs.
        loss: main task's mean binary cross-entropy (nats), smoothed over the last steps.
        rows_per_second: of the run so far.
    """

    done: int
    total: int
    loss: float
    rows_per_second: float


Progress = Callable[[TrainingProgress], None]


def no_progress(_: TrainingProgress) -> None:
    """For callers who do not watch."""


class ProgressMeter:
    """Counts rows, smooths the loss and tells ``progress`` after every step."""

    def __init__(self, total: int, progress: Progress) -> None:
        self.total, self.progress = total, progress
        self.done, self.loss = 0, float("nan")
        self.began = time.monotonic()

    def step(self, rows: int, loss: float) -> None:
        self.done += rows
        self.loss = loss if np.isnan(self.loss) else 0.95 * self.loss + 0.05 * loss
        rate = self.done / max(time.monotonic() - self.began, 1e-9)
        self.progress(TrainingProgress(min(self.done, self.total), self.total, self.loss, rate))


@contextmanager
def seeded(seed: int, threads: int) -> Iterator[np.random.Generator]:
    """Fixes torch's random numbers and threads inside, and puts both back afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            yield np.random.default_rng(seed)
    finally:
        torch.set_num_threads(before)


def learning_rate_at(share_done: float) -> float:
    """Factor in (0, 1]: linear warm-up over the first 5 % of the run, then cosine decay to 2 %."""
    if share_done < 0.05:
        return max(share_done / 0.05, 0.02)
    return 0.02 + 0.98 * 0.5 * (1.0 + float(np.cos(np.pi * (share_done - 0.05) / 0.95)))


def build_vocabulary(events: Events, catalogue: Catalogue) -> tuple[Vocabulary, torch.Tensor]:
    """Items of the catalogue and of the events, with the table of their feature indices (int64 [1 + I,
    F])."""
    counted = Counter(events.item.decode().tolist())
    items = (*catalogue.items, *sorted(set(counted) - set(catalogue.items)))
    features, table = feature_table(items, catalogue)
    actions = tuple(sorted(set(events.action.decode().tolist())))
    surfaces = tuple(sorted(set(events.surface.decode().tolist())))
    return Vocabulary(items, features, actions, surfaces), torch.from_numpy(table)


def check_labels(labels_E: np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> None:
    """Raises TrainingDataInvalid unless there are labels of both classes."""
    if len(labels_E) == 0:
        raise TrainingDataInvalid("there are no events to train on")
    known = labels_E[~np.isnan(labels_E)]
    if len(known) == 0:
        raise TrainingDataInvalid("no event has a label, so the main task cannot be trained")
    if known.min() == known.max():
        raise TrainingDataInvalid(f"all {len(known)} labels are {known[0]:.0f}; both classes are needed")


def train_foundation(
    events: Events,
    catalogue: Catalogue,
    config: FoundationConfig,
    *,
    seed: int = 0,
    threads: int = 2,
    progress: Progress = no_progress,
) -> FoundationModel:
    """Trains on all labelled events, each scored against the events strictly before its (random) page.

    The result is in eval mode, and the same for the same inputs, seed and threads on one machine. Items the
    events never show keep their initial embedding and live from their features.

    Raises:
        TrainingDataInvalid: no events, no labels, or one class only.
    """
    check_labels(events.label)
    vocabulary, table = build_vocabulary(events, catalogue)
    with seeded(seed, threads) as generator:
        model = FoundationModel(config, vocabulary, table)
        encoded = EncodedEvents.encode(events, vocabulary)
        _fit(model, encoded, generator, progress)
        _forget_unseen_items(model, encoded)
    return model.eval()


def _fit(
    model: FoundationModel, encoded: EncodedEvents, generator: np.random.Generator, progress: Progress
) -> None:
    config = model.config
    maker = BatchMaker(encoded, model, generator)
    meter = ProgressMeter(len(encoded.items) * config.epochs, progress)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay, betas=(0.9, 0.98)
    )
    model.train()
    for _, batch_list in epochs(encoded, model, generator):
        for windows in batch_list:
            for group in optimizer.param_groups:
                group["lr"] = config.learning_rate * learning_rate_at(meter.done / meter.total)
            _step(model, maker, windows, optimizer, meter)


def _step(
    model: FoundationModel,
    maker: BatchMaker,
    windows: Windows,
    optimizer: torch.optim.Optimizer,
    meter: ProgressMeter,
) -> None:
    batch = maker.make(windows)
    if bool(torch.isnan(batch.labels_BM).all()):
        meter.step(batch.rows, meter.loss)
        return
    loss, main = foundation_loss(model, batch)
    optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    meter.step(batch.rows, float(main))


def _forget_unseen_items(model: FoundationModel, encoded: EncodedEvents) -> None:
    """Items never trained on get the unknown item's embedding instead of a random one."""
    seen = torch.zeros(len(model.vocabulary.items) + 1, dtype=torch.bool)
    seen[torch.from_numpy(np.unique(encoded.items))] = True
    with torch.no_grad():
        model.item.weight[~seen] = model.item.weight[0].clone()
