# ruff: noqa: N815  # tensors carry shape suffixes: x_BLD
"""The HSTU stack: history tokens are encoded once, candidate tokens are scored against their keys and values.

Source: "Actions Speak Louder than Words" (arXiv 2402.17152) and its public reference implementation, in its
    two variants:

* ``research``: LayerNorm without parameters, bias-free projection, SiLU on U, V, Q and K, no 1/sqrt(d), and
  per layer a relative bias of one weight per position difference plus one per log-bucketed time difference.
* ``production``: LayerNorm with parameters, projection with bias, SiLU on U only, scale 1/sqrt(K), no
  relative bias (position and time are embedded at the input, see ``foundation``).

Attention weights are SiLU(scores) / n, the mask multiplies after the SiLU, and n is the configured maximum
length: it must not follow the batch. History is causal; a candidate sees a prefix of the history and itself,
never another candidate. History tokens therefore never depend on candidates, and training, serving and the
K/V cache are the same two calls, ``prefill`` and ``score``; ``reference`` is the readable single pass they
are tested against.

Legend: B batch, N history tokens, P past (cached) tokens, M candidates, T tokens in general, Q queries, S
keys, D width, H heads, K width of a head.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812  # the name every torch reader knows
from torch import Tensor, nn

from bedplate_modeling.config import Variant

SECONDS_PER_BUCKET_LOG = 0.301


def time_bucket(seconds: Tensor, buckets: int) -> Tensor:
    """int64 like ``seconds``: floor(ln(max(|dt|, 1)) / 0.301), at most ``buckets`` - 1."""
    logs = seconds.abs().clamp(min=1).to(torch.float32).log() / SECONDS_PER_BUCKET_LOG
    return logs.floor().to(torch.int64).clamp(max=buckets - 1)


@dataclass(frozen=True)
class LayerKeys:
    """Keys k_BHNK and values v_BHNK of one layer's history tokens."""

    k_BHNK: Tensor
    v_BHNK: Tensor

    def after(self, past: LayerKeys) -> LayerKeys:
        return LayerKeys(torch.cat((past.k_BHNK, self.k_BHNK), 2), torch.cat((past.v_BHNK, self.v_BHNK), 2))


@dataclass(frozen=True)
class HistoryKeys:
    """What candidates need of a history: keys and values per layer, and the times (int64 seconds)."""

    layers: tuple[LayerKeys, ...]
    times_BN: Tensor


@dataclass(frozen=True)
class Pairs:
    """Relations of Q queries to S keys: a multiplicative mask (0 or 1/n), position and time differences."""

    mask_BQS: Tensor
    positions_BQS: Tensor | None = None
    buckets_BQS: Tensor | None = None


class RelativeBias(nn.Module):
    """One weight per position difference and one per time bucket, shared by the heads (research variant)."""

    def __init__(self, max_history: int, time_buckets: int) -> None:
        super().__init__()
        self.position = nn.Parameter(torch.empty(max_history + 1).normal_(std=0.02))
        self.time = nn.Parameter(torch.empty(time_buckets).normal_(std=0.02))

    def forward(self, pairs: Pairs) -> Tensor:
        assert pairs.positions_BQS is not None
        assert pairs.buckets_BQS is not None
        return self.position[pairs.positions_BQS] + self.time[pairs.buckets_BQS]

    def own(self) -> Tensor:
        """Scalar: the bias of a token towards itself."""
        return self.position[0] + self.time[0]


class HstuLayer(nn.Module):
    """One HSTU block; see the module's docstring for the variants."""

    def __init__(
        self, dim: int, heads: int, max_history: int, time_buckets: int, dropout: float, variant: Variant
    ) -> None:
        super().__init__()
        self.dim, self.heads, self.width = dim, heads, dim // heads
        self.max_history, self.dropout = max_history, dropout
        self.research = variant == "research"
        self.scale = 1.0 if self.research else self.width**-0.5
        self.input_norm = nn.LayerNorm(dim, elementwise_affine=not self.research)
        self.output_norm = nn.LayerNorm(dim, elementwise_affine=not self.research)
        self.uvqk = nn.Linear(dim, 4 * dim, bias=not self.research)
        self.output = nn.Linear(dim, dim)
        self.bias = RelativeBias(max_history, time_buckets) if self.research else None
        nn.init.normal_(self.uvqk.weight, std=0.02 if self.research else dim**-0.5)

    def project(self, x_BTD: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """u_BTD, and v, q, k as [B, H, T, K]."""
        projected = self.uvqk(self.input_norm(x_BTD))
        if self.research:
            u_BTD, v, q, k = torch.split(F.silu(projected), self.dim, dim=-1)
        else:
            u_BTD, v, q, k = torch.split(projected, self.dim, dim=-1)
            u_BTD = F.silu(u_BTD)
        return u_BTD, self._split(v), self._split(q), self._split(k)

    def _split(self, x_BTD: Tensor) -> Tensor:
        return x_BTD.view(*x_BTD.shape[:2], self.heads, self.width).transpose(1, 2)

    def attend(self, q_BHQK: Tensor, keys: LayerKeys, pairs: Pairs) -> Tensor:
        """[B, H, Q, K]: sum over keys of SiLU(score) * mask * value."""
        scores_BHQS = (q_BHQK * self.scale) @ keys.k_BHNK.transpose(-1, -2)
        if self.bias is not None:
            scores_BHQS = scores_BHQS + self.bias(pairs)[:, None]
        return (F.silu(scores_BHQS) * pairs.mask_BQS[:, None]) @ keys.v_BHNK

    def attend_self(self, q_BHMK: Tensor, k_BHMK: Tensor, v_BHMK: Tensor) -> Tensor:
        """[B, H, M, K]: each candidate's attention to itself alone."""
        scores_BHM1 = (q_BHMK * k_BHMK).sum(-1, keepdim=True) * self.scale
        if self.bias is not None:
            scores_BHM1 = scores_BHM1 + self.bias.own()
        return F.silu(scores_BHM1) / self.max_history * v_BHMK

    def finish(self, x_BTD: Tensor, u_BTD: Tensor, attended_BHTK: Tensor) -> Tensor:
        """f2(dropout(U * LayerNorm(A V))) + X."""
        mixed_BTD = self.output_norm(attended_BHTK.transpose(1, 2).flatten(2))
        out_BTD: Tensor = self.output(F.dropout(u_BTD * mixed_BTD, self.dropout, self.training))
        return x_BTD + out_BTD

    def keys(self, x_BTD: Tensor) -> LayerKeys:
        """Keys and values alone: all the last layer needs of the history."""
        _, v, _, k = self.project(x_BTD)
        return LayerKeys(k, v)

    def history(self, x_BTD: Tensor, pairs: Pairs, past: LayerKeys | None) -> tuple[Tensor, LayerKeys]:
        u, v, q, k = self.project(x_BTD)
        keys = LayerKeys(k, v) if past is None else LayerKeys(k, v).after(past)
        return self.finish(x_BTD, u, self.attend(q, keys, pairs)), keys

    def candidates(self, x_BMD: Tensor, keys: LayerKeys, pairs: Pairs) -> Tensor:
        u, v, q, k = self.project(x_BMD)
        return self.finish(x_BMD, u, self.attend(q, keys, pairs) + self.attend_self(q, k, v))


class Hstu(nn.Module):
    """A stack of HSTU layers.

    ``prefill`` and ``score`` together equal ``reference`` to rounding. Nothing is cached on the module.
    """

    def __init__(
        self,
        dim: int,
        heads: int,
        layers: int,
        max_history: int,
        time_buckets: int = 80,
        dropout: float = 0.0,
        variant: Variant = "production",
    ) -> None:
        super().__init__()
        self.max_history, self.time_buckets = max_history, time_buckets
        self.research = variant == "research"
        self.layers = nn.ModuleList(
            HstuLayer(dim, heads, max_history, time_buckets, dropout, variant) for _ in range(layers)
        )

    def _layers(self) -> list[HstuLayer]:
        return [layer for layer in self.layers if isinstance(layer, HstuLayer)]

    def pairs(
        self, allowed_BQS: Tensor, query_positions_BQ: Tensor, query_times_BQ: Tensor, key_times_BS: Tensor
    ) -> Pairs:
        """Relations of queries to keys whose positions are 0..S-1; times are int64 seconds."""
        mask_BQS = allowed_BQS.to(torch.float32) / self.max_history
        if not self.research:
            return Pairs(mask_BQS)
        slots_S = torch.arange(key_times_BS.shape[1], device=key_times_BS.device)
        distance = (query_positions_BQ[..., None] - slots_S).clamp(0, self.max_history)
        elapsed = query_times_BQ[..., None] - key_times_BS[:, None]
        return Pairs(mask_BQS, distance, time_bucket(elapsed, self.time_buckets))

    def prefill(self, x_BTD: Tensor, times_BT: Tensor, past: HistoryKeys | None = None) -> HistoryKeys:
        """Encodes history tokens (float32 [B, T, D], int64 seconds [B, T]), after ``past`` ones if given.

        Rows shorter than T are padded at the end; padding is never seen if ``score`` gets the true lengths.
        """
        key_times_BN = times_BT if past is None else torch.cat((past.times_BN, times_BT), 1)
        size, queries = key_times_BN.shape[1], x_BTD.shape[1]
        slots_N = torch.arange(size, device=x_BTD.device)
        positions_T = slots_N[size - queries :]
        allowed_1QS = (slots_N <= positions_T[:, None])[None]
        pairs = self.pairs(allowed_1QS, positions_T[None], times_BT, key_times_BN)
        layers = self._layers()
        found: list[LayerKeys] = []
        for index, layer in enumerate(layers):
            before = None if past is None else past.layers[index]
            if index + 1 < len(layers):
                x_BTD, keys = layer.history(x_BTD, pairs, before)
            else:
                keys = layer.keys(x_BTD)
                keys = keys if before is None else keys.after(before)
            found.append(keys)
        return HistoryKeys(tuple(found), key_times_BN)

    def score(self, x_BMD: Tensor, times_BM: Tensor, visible_BM: Tensor, history: HistoryKeys) -> Tensor:
        """float32 [B, M, D]: candidates, each seeing itself and the first ``visible`` history tokens.

        Candidates take the position right after the last visible token, so those of one request share it.
        """
        slots_N = torch.arange(history.times_BN.shape[1], device=x_BMD.device)
        allowed_BMN = slots_N < visible_BM[..., None]
        pairs = self.pairs(allowed_BMN, visible_BM, times_BM, history.times_BN)
        for layer, keys in zip(self._layers(), history.layers, strict=True):
            x_BMD = layer.candidates(x_BMD, keys, pairs)
        return x_BMD

    def reference(self, x_BTD: Tensor, times_BT: Tensor, positions_BT: Tensor, allowed_BTT: Tensor) -> Tensor:
        """float32 [B, T, D]: one dense pass over history and candidates together under an explicit mask.

        The readable form, quadratic in all tokens; ``positions`` of candidates are their numbers of visible
        tokens.
        """
        mask_BTT = allowed_BTT.to(torch.float32) / self.max_history
        distance = (positions_BT[:, :, None] - positions_BT[:, None]).clamp(0, self.max_history)
        elapsed = times_BT[:, :, None] - times_BT[:, None]
        pairs = Pairs(mask_BTT, distance, time_bucket(elapsed, self.time_buckets))
        for layer in self._layers():
            x_BTD, _ = layer.history(x_BTD, pairs, None)
        return x_BTD
