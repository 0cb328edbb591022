"""Losses of the foundation model.

Legend: B windows, M candidates, Q queries, R targets of a query, D width, C compared items.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from bedplate_modeling.foundation import FoundationModel
from bedplate_modeling.windows import TrainingBatch

SAMPLED_ITEMS = 1024


def foundation_loss(model: FoundationModel, batch: TrainingBatch) -> tuple[Tensor, Tensor]:
    """(total, main): scalars; the sum over the main task, the action, each candidate's own surface task,
    retrieval.

    Each task is masked to the samples where it exists (arXiv 2508.02929); main is mean binary cross-entropy.
    """
    config = model.config
    history = model.prefill(batch.history)
    logits = model.logits(model.tae(batch.candidates, history))
    known_BM = ~torch.isnan(batch.labels_BM)
    labels = batch.labels_BM[known_BM]
    main = F.binary_cross_entropy_with_logits(logits.main[known_BM], labels)
    total = main
    if config.action_weight > 0:
        total = total + config.action_weight * _action_loss(logits.action, batch)
    if config.surface_weight > 0:
        surfaces = batch.candidates.surfaces_BM[known_BM]
        own = logits.surface[known_BM].gather(1, surfaces[:, None])[:, 0]
        total = total + config.surface_weight * F.binary_cross_entropy_with_logits(own, labels)
    if config.retrieval_weight > 0:
        users_BQD = model.users(batch.query_times_BQ, batch.query_visible_BQ, history)
        total = total + config.retrieval_weight * retrieval_loss(model, users_BQD, batch.query_items_BQR)
    return total, main.detach()


def _action_loss(logits_BMA: Tensor, batch: TrainingBatch) -> Tensor:
    known = batch.actions_BM > 0
    if not bool(known.any()):
        return logits_BMA.sum() * 0.0
    return F.cross_entropy(logits_BMA[known], batch.actions_BM[known])


def retrieval_loss(model: FoundationModel, users_BQD: Tensor, items_BQR: Tensor) -> Tensor:
    """Scalar: softmax of user . item / temperature over the batch's targets and uniformly sampled items.

    ``items_BQR`` (int64) holds each user's next R positive items, 0 where there are fewer; each is a target
    of its own. With a catalogue of at most SAMPLED_ITEMS all items are compared.
    """
    wanted_BQR = items_BQR > 0
    targets = items_BQR[wanted_BQR]
    if len(targets) == 0:
        return users_BQD.sum() * 0.0
    known = len(model.vocabulary.items)
    if known <= SAMPLED_ITEMS:
        sampled = torch.arange(1, known + 1)
    else:
        sampled = torch.randint(1, known + 1, (SAMPLED_ITEMS,))
    items_C, place = torch.unique(torch.cat((targets, sampled)), return_inverse=True)
    vectors_CD = model.item_vectors(model.item_tokens(items_C[None]))[0]
    logs_BQC = F.log_softmax(users_BQD @ vectors_CD.T / model.config.temperature, dim=-1)
    batch, query, _ = torch.nonzero(wanted_BQR, as_tuple=True)
    return -logs_BQC[batch, query, place[: len(targets)]].mean()
