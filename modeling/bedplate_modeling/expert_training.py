"""Training of an expert on logged rows.

Legend: N candidates.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from bedplate_modeling.config import ExpertConfig
from bedplate_modeling.events import Catalogue
from bedplate_modeling.expert import ExpertBatch, ExpertModel
from bedplate_modeling.expert_rows import ExpertRows, ExpertRowsInvalid
from bedplate_modeling.training import (
    Progress,
    ProgressMeter,
    check_labels,
    learning_rate_at,
    no_progress,
    seeded,
)
from bedplate_modeling.vocabulary import Vocabulary, feature_table


def expert_vocabulary(rows: ExpertRows, surface: str) -> tuple[Vocabulary, Tensor]:
    """Items and actions seen as candidates or in histories, with the table of the items' features."""
    items = sorted({*rows.items, *(item for history in rows.histories for item in history.items)})
    actions = sorted({action for history in rows.histories for action in history.actions})
    known = {item: rows.item_features[item] for item in items if item in rows.item_features}
    features, table = feature_table(items, Catalogue.from_items(known))
    return Vocabulary(tuple(items), features, tuple(actions), (surface,)), torch.from_numpy(table)


def train_expert(
    rows: ExpertRows,
    config: ExpertConfig,
    seed: int = 0,
    progress: Progress = no_progress,
    *,
    threads: int = 2,
) -> ExpertModel:
    """Trains on rows as logged; no gradient and no state is shared with the foundation.

    The result is in eval mode, and the same for the same rows, seed and threads on one machine.

    Raises:
        ExpertRowsInvalid: the rows do not fit each other or the configuration, or have no labels.
        TrainingDataInvalid: no rows, or labels of one class only.
    """
    if rows.label_N is None or len(rows.label_N) != len(rows):
        raise ExpertRowsInvalid("training needs a label for every row")
    labels_N = np.asarray(rows.label_N, np.float32)
    check_labels(labels_N)
    vocabulary, table = expert_vocabulary(rows, config.surface)
    with seeded(seed, threads) as generator:
        model = ExpertModel(config, vocabulary, table)
        with torch.no_grad():
            rate = float(np.clip(np.nanmean(labels_N), 1e-4, 1 - 1e-4))
            model.head.bias.fill_(float(np.log(rate / (1 - rate))))
        _fit(model, model.encode(rows), torch.from_numpy(labels_N), generator, progress)
    return model.eval()


def _fit(
    model: ExpertModel,
    encoded: ExpertBatch,
    labels_N: Tensor,
    generator: np.random.Generator,
    progress: Progress,
) -> None:
    config = model.config
    known_N = torch.nonzero(~torch.isnan(labels_N))[:, 0]
    meter = ProgressMeter(len(known_N) * config.epochs, progress)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay, betas=(0.9, 0.98)
    )
    model.train()
    for _ in range(config.epochs):
        for rows_N in _request_batches(encoded.request_N[known_N], config.batch_rows, generator):
            chosen = known_N[rows_N]
            for group in optimizer.param_groups:
                group["lr"] = config.learning_rate * learning_rate_at(meter.done / meter.total)
            logits = model(_hide_items(encoded.rows(chosen), config.item_dropout))
            loss = F.binary_cross_entropy_with_logits(logits, labels_N[chosen])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            meter.step(len(chosen), float(loss.detach()))


def _request_batches(request_N: Tensor, batch_rows: int, generator: np.random.Generator) -> Iterator[Tensor]:
    """Rows in random order of their requests, so that a request's history is encoded once for its
    candidates."""
    requests = request_N.numpy()
    place = generator.permutation(int(requests.max()) + 1)[requests]
    order = torch.from_numpy(np.argsort(place, kind="stable"))
    yield from torch.split(order, batch_rows)


def _hide_items(batch: ExpertBatch, share: float) -> ExpertBatch:
    hidden_N = torch.rand(batch.items_N.shape) < share
    return ExpertBatch(
        batch.items_N.masked_fill(hidden_N, 0),
        batch.features_NF,
        batch.request_N,
        batch.history_items_RL,
        batch.history_actions_RL,
        batch.history_ages_RL,
        batch.history_lengths_R,
        batch.foundation_ND,
    )
