# ruff: noqa: N815  # tensors carry shape suffixes: x_BLD
"""The expert: a small, surface-specific ranker on the foundation's logged embeddings.

FM embedding module (normalise, regularise) and a light HSTU over the recent same-surface history meet in the
FM fusion; the expert fusion adds the item's and the user's own features; then the task head (arXiv
2508.02929, expert model). With ``foundation_inputs="none"`` the same network, made wider by
``ExpertConfig.one_stage``, is the one-stage baseline of equal serving compute.

Legend: N candidates, R requests, L history places, D width of the foundation's vectors, C width of the
expert, F feature values of an item, G hidden width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from bedplate_modeling.config import ExpertConfig
from bedplate_modeling.expert_rows import ExpertRows
from bedplate_modeling.hstu import HistoryKeys, Hstu, LayerKeys, time_bucket
from bedplate_modeling.vocabulary import Vocabulary

__all__ = ["ExpertBatch", "ExpertModel", "ExpertRows", "FoundationEmbedding", "input_width"]

AGE_BUCKETS = 80


@dataclass(frozen=True)
class ExpertBatch:
    """Encoded rows: histories padded at the end, ages in seconds (all int64), foundation inputs float32."""

    items_N: Tensor
    features_NF: Tensor
    request_N: Tensor
    history_items_RL: Tensor
    history_actions_RL: Tensor
    history_ages_RL: Tensor
    history_lengths_R: Tensor
    foundation_ND: Tensor | None

    def rows(self, rows_N: Tensor) -> ExpertBatch:
        """Some candidates, with only the requests they belong to."""
        requests, request_N = torch.unique(self.request_N[rows_N], return_inverse=True)
        return ExpertBatch(
            self.items_N[rows_N],
            self.features_NF[rows_N],
            request_N,
            self.history_items_RL[requests],
            self.history_actions_RL[requests],
            self.history_ages_RL[requests],
            self.history_lengths_R[requests],
            None if self.foundation_ND is None else self.foundation_ND[rows_N],
        )


class FoundationEmbedding(nn.Module):
    """Normalises and regularises the foundation's vectors, which absorbs their shift between versions and in
    time."""

    def __init__(self, dim: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.dropout = nn.Dropout(dropout)
        self.project = nn.Linear(dim, hidden)

    def forward(self, x_ND: Tensor) -> Tensor:
        out: Tensor = F.silu(self.project(self.dropout(self.norm(x_ND))))
        return out


class ExpertModel(nn.Module):
    """See the module's docstring. ``feature_table`` (int64 [1 + I, F]) is a buffer, as in the foundation."""

    feature_table: Tensor

    def __init__(self, config: ExpertConfig, vocabulary: Vocabulary, feature_table: Tensor) -> None:
        super().__init__()
        self.config, self.vocabulary = config, vocabulary
        dim, hidden = config.dim, config.hidden
        self.register_buffer("feature_table", feature_table.to(torch.int64))
        self.item = _embedding(len(vocabulary.items), dim)
        self.item_bias = nn.Embedding(len(vocabulary.items) + 1, 1)
        nn.init.zeros_(self.item_bias.weight)
        self.feature = _embedding(len(vocabulary.features), dim)
        self.action = _embedding(len(vocabulary.actions), dim)
        self.recency = _embedding(config.history_length, dim)
        self.age = _embedding(AGE_BUCKETS, dim)
        self.target = nn.Parameter(torch.empty(dim).normal_(std=0.02))
        self.hstu = Hstu(dim, config.heads, config.layers, config.history_length, dropout=config.dropout)
        self.hstu_norm = nn.LayerNorm(dim)
        width = input_width(config)
        self.foundation = FoundationEmbedding(width, hidden, config.foundation_dropout) if width else None
        self.fm_fusion = nn.Linear(dim + (hidden if width else 0), hidden)
        self.expert_fusion = nn.Sequential(
            nn.Linear(hidden + 2 * dim, hidden), nn.SiLU(), nn.Dropout(config.dropout)
        )
        self.head = nn.Linear(hidden, 1)

    def content(self, items: Tensor, features: Tensor) -> Tensor:
        """float32 [..., C]: item embedding plus the mean of its feature embeddings."""
        present = (features > 0).unsqueeze(-1)
        total = (self.feature(features) * present).sum(-2)
        content: Tensor = self.item(items) + total / present.sum(-2).clamp(min=1)
        return content

    def _history(self, batch: ExpertBatch) -> HistoryKeys:
        """Places count back from the request: the most recent event has recency 1, padding 0."""
        slots_L = torch.arange(batch.history_items_RL.shape[1])
        recency_RL = (batch.history_lengths_R[:, None] - slots_L).clamp(min=0)
        content = self.content(batch.history_items_RL, self.feature_table[batch.history_items_RL])
        ages = self.age(1 + time_bucket(batch.history_ages_RL, AGE_BUCKETS))
        x_RLC = content + self.action(batch.history_actions_RL) + self.recency(recency_RL) + ages
        return self.hstu.prefill(x_RLC, -batch.history_ages_RL)

    def _recent(self, content_NC: Tensor, batch: ExpertBatch) -> Tensor:
        """float32 [N, C]: the light HSTU's output at each candidate."""
        keys = self._history(batch)
        of_row = HistoryKeys(
            tuple(LayerKeys(k.k_BHNK[batch.request_N], k.v_BHNK[batch.request_N]) for k in keys.layers),
            keys.times_BN[batch.request_N],
        )
        x_N1C = (content_NC + self.target)[:, None]
        now_N1 = torch.zeros_like(batch.items_N)[:, None]
        lengths_N1 = batch.history_lengths_R[batch.request_N][:, None]
        out: Tensor = self.hstu_norm(self.hstu.score(x_N1C, now_N1, lengths_N1, of_row)[:, 0])
        return out

    def _user_features(self, batch: ExpertBatch) -> Tensor:
        """float32 [R, C]: how much recent history there is, and how long ago the last event was."""
        lengths_R = batch.history_lengths_R
        last_R1 = (lengths_R - 1).clamp(min=0)[:, None]
        if batch.history_ages_RL.shape[1] == 0:
            bucket_R = torch.zeros_like(lengths_R)
        else:
            bucket_R = 1 + time_bucket(batch.history_ages_RL.gather(1, last_R1)[:, 0], AGE_BUCKETS)
        out: Tensor = self.recency(lengths_R) + self.age(torch.where(lengths_R > 0, bucket_R, 0))
        return out

    def forward(self, batch: ExpertBatch) -> Tensor:
        """float32 [N]: logits."""
        content_NC = self.content(batch.items_N, batch.features_NF)
        fused = self._recent(content_NC, batch)
        if self.foundation is not None:
            assert batch.foundation_ND is not None
            fused = torch.cat((fused, self.foundation(batch.foundation_ND)), -1)
        fused_NG = F.silu(self.fm_fusion(fused))
        user_NC = self._user_features(batch)[batch.request_N]
        hidden_NG = self.expert_fusion(torch.cat((fused_NG, content_NC, user_NC), -1))
        logits: Tensor = (self.head(hidden_NG) + self.item_bias(batch.items_N))[:, 0]
        return logits

    def encode(self, rows: ExpertRows) -> ExpertBatch:
        """Indices and tensors of rows; raises ExpertRowsInvalid."""
        rows.check(self.config)
        length = max((min(len(h), self.config.history_length) for h in rows.histories), default=0)
        shape = (len(rows.histories), length)
        items_RL, actions_RL, ages_RL = (np.zeros(shape, np.int64) for _ in range(3))
        lengths_R = np.zeros(shape[0], np.int64)
        item_index, action_index = self.vocabulary.item_index, self.vocabulary.action_index
        for place, whole in enumerate(rows.histories):
            history = whole.last(length) if len(whole) > length else whole
            size = lengths_R[place] = len(history)
            items_RL[place, :size] = [item_index.get(key, 0) for key in history.items]
            actions_RL[place, :size] = [action_index.get(key, 0) for key in history.actions]
            ages_RL[place, :size] = (rows.request_at_ms_R[place] - history.event_time_ms) // 1000
        items_N = torch.tensor([item_index.get(key, 0) for key in rows.items], dtype=torch.int64)
        return ExpertBatch(
            items_N,
            self._features(items_N, rows),
            torch.from_numpy(np.asarray(rows.request_index_N, np.int64)),
            torch.from_numpy(items_RL),
            torch.from_numpy(actions_RL),
            torch.from_numpy(ages_RL),
            torch.from_numpy(lengths_R),
            self._foundation_inputs(rows),
        )

    def _features(self, items_N: Tensor, rows: ExpertRows) -> Tensor:
        features_NF = self.feature_table[items_N]
        for place in torch.nonzero(items_N == 0)[:, 0].tolist():
            given: Any = rows.item_features.get(rows.items[place], {})
            row = self.vocabulary.feature_row(given, features_NF.shape[1])
            features_NF[place] = torch.tensor(row, dtype=torch.int64)
        return features_NF

    def _foundation_inputs(self, rows: ExpertRows) -> Tensor | None:
        if self.config.foundation_inputs == "tae":
            return torch.from_numpy(np.array(rows.tae_ND, np.float32))
        if self.config.foundation_inputs == "none":
            return None
        assert rows.user_vectors_ND is not None
        assert rows.item_vectors_ND is not None
        user_ND, item_ND = rows.user_vectors_ND, rows.item_vectors_ND
        user_found_N1 = np.asarray(rows.user_found_N, np.float32)[:, None]
        item_found_N1 = np.asarray(rows.item_found_N, np.float32)[:, None]
        user_ND, item_ND = user_ND * user_found_N1, item_ND * item_found_N1
        both = (user_ND, item_ND, user_ND * item_ND, user_found_N1, item_found_N1)
        return torch.from_numpy(np.concatenate(both, axis=1).astype(np.float32))


def input_width(config: ExpertConfig) -> int:
    """Columns of the foundation inputs: TAE alone, or user, item, their product and the two found masks."""
    return {"none": 0, "tae": config.foundation_dim, "vectors": 3 * config.foundation_dim + 2}[
        config.foundation_inputs
    ]


def _embedding(keys: int, dim: int) -> nn.Embedding:
    table = nn.Embedding(keys + 1, dim)
    nn.init.normal_(table.weight, std=0.02)
    return table
