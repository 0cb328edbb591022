# ruff: noqa: N815  # tensors carry shape suffixes: x_BLD
"""The foundation model: tokens of history and candidates, an HSTU stack, three spaces and the task heads.

A history token is f(item + item features + surface) summed with its action; a candidate has one learned
target vector in the action's place, so no action can leak (arXiv 2508.02929, section on the foundation
model). Spaces:

* ``tae``: the output at a candidate's position, keyed by (user, candidate, time).
* ``item``: the item tower, a unit vector per item.
* ``user``: the output at a learned query token after the history, a unit vector; user . item ranks items for
  a user.

Legend: B batch, N history tokens, M candidates, T tokens, D width, F feature values of an item, A actions, S
surfaces, I items.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from bedplate_modeling.config import FoundationConfig
from bedplate_modeling.hstu import HistoryKeys, Hstu, time_bucket
from bedplate_modeling.vocabulary import Vocabulary

EMBEDDING_STD = 0.005
"""Embeddings start near zero and grow where the data ask for it. Measured on MovieLens-1M, one epoch over
the first 35 % (NE on the last 15 %): 0.8112 with 0.005, 0.8141 with 0.02, 0.8601 with 0.1."""


@dataclass(frozen=True)
class ItemTokens:
    """Item indices (int64 [B, T], 0 unknown) and indices of their feature values (int64 [B, T, F], 0
    none)."""

    items_BT: Tensor
    features_BTF: Tensor


@dataclass(frozen=True)
class HistoryBatch:
    """Histories padded at the end: items, actions and surfaces (int64 [B, N]), times in seconds (int64 [B,
    N])."""

    items: ItemTokens
    actions_BN: Tensor
    surfaces_BN: Tensor
    times_BN: Tensor


@dataclass(frozen=True)
class CandidateBatch:
    """Candidates: items, surfaces and times (int64 [B, M], seconds), and how many events each may see."""

    items: ItemTokens
    surfaces_BM: Tensor
    times_BM: Tensor
    visible_BM: Tensor


class TaskLogits(NamedTuple):
    """Logits of the main task [...], of the action [..., 1 + A] and of each surface's own task [..., 1 +
    S]."""

    main: Tensor
    action: Tensor
    surface: Tensor


class FoundationModel(nn.Module):
    """HSTU over a user's events of all surfaces, with target-aware candidates.

    ``feature_table`` (int64 [1 + I, F], a buffer) holds the known items' feature indices, so that serving
    needs no catalogue for them; an unknown item is index 0 plus whatever features are given with it.
    """

    feature_table: Tensor

    def __init__(self, config: FoundationConfig, vocabulary: Vocabulary, feature_table: Tensor) -> None:
        super().__init__()
        self.config, self.vocabulary = config, vocabulary
        dim = config.dim
        self.register_buffer("feature_table", feature_table.to(torch.int64))
        self.item = _embedding(len(vocabulary.items), dim)
        self.feature = _embedding(len(vocabulary.features), dim)
        self.action = _embedding(len(vocabulary.actions), dim)
        self.surface = _embedding(len(vocabulary.surfaces), dim)
        self.target_action = nn.Parameter(torch.empty(dim).normal_(std=0.02))
        self.query = nn.Parameter(torch.empty(dim).normal_(std=0.02))
        self.context = nn.Sequential(nn.Linear(dim, dim), nn.SiLU(), nn.Linear(dim, dim))
        production = config.variant == "production"
        self.position = _embedding(config.max_history, dim) if production else None
        self.gap = _embedding(config.time_buckets, dim) if production else None
        self.hstu = Hstu(
            dim,
            config.heads,
            config.layers,
            config.max_history,
            config.time_buckets,
            config.dropout,
            config.variant,
        )
        self.output_norm = nn.LayerNorm(dim)
        self.main_head = nn.Linear(dim, 1)
        self.action_head = nn.Linear(dim, 1 + len(vocabulary.actions))
        self.surface_head = nn.Linear(dim, 1 + len(vocabulary.surfaces))
        self.retrieved_item = _embedding(len(vocabulary.items), dim)
        self.item_tower = nn.Linear(dim, dim, bias=False)
        self.user_tower = nn.Linear(dim, dim, bias=False)

    def item_tokens(self, items_BT: Tensor) -> ItemTokens:
        """Known items with their features from the table."""
        return ItemTokens(items_BT, self.feature_table[items_BT])

    def content(self, tokens: ItemTokens) -> Tensor:
        """float32 [B, T, D]: item embedding plus the mean of its feature embeddings."""
        present_BTF1 = (tokens.features_BTF > 0).unsqueeze(-1)
        total_BTD = (self.feature(tokens.features_BTF) * present_BTF1).sum(-2)
        content_BTD: Tensor = self.item(tokens.items_BT) + total_BTD / present_BTF1.sum(-2).clamp(min=1)
        return content_BTD

    def _in_context(self, content_BTD: Tensor, surfaces_BT: Tensor) -> Tensor:
        x_BTD: Tensor = content_BTD + self.surface(surfaces_BT)
        mixed_BTD: Tensor = self.context(x_BTD)
        return x_BTD + mixed_BTD

    def _placed(self, x_BTD: Tensor, positions_BT: Tensor, gaps_BT: Tensor) -> Tensor:
        """Adds position and time embeddings in the production variant; the research one biases attention."""
        if self.position is None or self.gap is None:
            return x_BTD
        placed: Tensor = x_BTD + self.position(positions_BT) + self.gap(gaps_BT)
        return placed

    def _gaps(self, elapsed_BT: Tensor, has_previous_BT: Tensor) -> Tensor:
        """Buckets of seconds since the previous event, shifted by one: 0 means there was none."""
        return torch.where(has_previous_BT, 1 + time_bucket(elapsed_BT, self.config.time_buckets), 0)

    def history_tokens(self, batch: HistoryBatch, past_times_BN: Tensor | None = None) -> Tensor:
        """float32 [B, N, D]: inputs of the stack for events that follow ``past_times`` (if any)."""
        x_BND = self._in_context(self.content(batch.items), batch.surfaces_BN) + self.action(batch.actions_BN)
        past = 0 if past_times_BN is None else past_times_BN.shape[1]
        slots_1N = past + torch.arange(batch.times_BN.shape[1], device=x_BND.device)[None]
        times = batch.times_BN if past_times_BN is None else torch.cat((past_times_BN, batch.times_BN), 1)
        elapsed_BN = torch.diff(times, dim=1, prepend=times[:, :1])[:, past:]
        return self._placed(x_BND, slots_1N, self._gaps(elapsed_BN, (slots_1N > 0).expand_as(elapsed_BN)))

    def _candidate_tokens(
        self, x_BMD: Tensor, times_BM: Tensor, visible_BM: Tensor, key_times_BN: Tensor
    ) -> Tensor:
        x_BMD = x_BMD + self.target_action
        if key_times_BN.shape[1] == 0:
            return self._placed(x_BMD, visible_BM, torch.zeros_like(visible_BM))
        last_BM = key_times_BN.gather(1, (visible_BM - 1).clamp(min=0))
        return self._placed(x_BMD, visible_BM, self._gaps(times_BM - last_BM, visible_BM > 0))

    def candidate_tokens(self, batch: CandidateBatch, key_times_BN: Tensor) -> Tensor:
        """float32 [B, M, D]: inputs of the stack for candidates."""
        x_BMD = self._in_context(self.content(batch.items), batch.surfaces_BM)
        return self._candidate_tokens(x_BMD, batch.times_BM, batch.visible_BM, key_times_BN)

    def prefill(self, batch: HistoryBatch, past: HistoryKeys | None = None) -> HistoryKeys:
        """Keys and values of the history, to be given to ``tae`` and ``users``; ``past`` is extended."""
        past_times = None if past is None else past.times_BN
        return self.hstu.prefill(self.history_tokens(batch, past_times), batch.times_BN, past)

    def tae(self, batch: CandidateBatch, history: HistoryKeys) -> Tensor:
        """float32 [B, M, D]: the target-aware embeddings."""
        x_BMD = self.candidate_tokens(batch, history.times_BN)
        out: Tensor = self.output_norm(self.hstu.score(x_BMD, batch.times_BM, batch.visible_BM, history))
        return out

    def users(self, times_BM: Tensor, visible_BM: Tensor, history: HistoryKeys) -> Tensor:
        """float32 [B, M, D], unit length: the user as of each time, seeing the first ``visible`` events."""
        query_BMD = self.query.expand(*times_BM.shape, -1)
        x_BMD = self._candidate_tokens(query_BMD, times_BM, visible_BM, history.times_BN)
        out_BMD = self.output_norm(self.hstu.score(x_BMD, times_BM, visible_BM, history))
        return F.normalize(self.user_tower(out_BMD), dim=-1)

    def item_vectors(self, tokens: ItemTokens) -> Tensor:
        """float32 [B, T, D], unit length: the item tower.

        It has an embedding table of its own and no gradient into the shared one: sharing cost the main task
        0.01 NE on MovieLens-1M.
        """
        content_BTD = self.content(tokens).detach()
        return F.normalize(self.retrieved_item(tokens.items_BT) + self.item_tower(content_BTD), dim=-1)

    def logits(self, tae_BMD: Tensor) -> TaskLogits:
        """The tasks' logits at candidates; the prediction is sigmoid(main)."""
        main: Tensor = self.main_head(tae_BMD).squeeze(-1)
        return TaskLogits(main, self.action_head(tae_BMD), self.surface_head(tae_BMD))

    def forward(self, history: HistoryBatch, candidates: CandidateBatch) -> Tensor:
        """float32 [B, M, D]: TAE in one call."""
        return self.tae(candidates, self.prefill(history))


def _embedding(keys: int, dim: int) -> nn.Embedding:
    """Rows 0..keys, row 0 for the unknown."""
    table = nn.Embedding(keys + 1, dim)
    nn.init.normal_(table.weight, std=EMBEDDING_STD)
    return table
