"""The one-stage baseline and the expert on TAE have equal serving compute, counted by PyTorch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from bedplate_modeling.config import ExpertConfig, FoundationConfig
from bedplate_modeling.events import History
from bedplate_modeling.expert import ExpertModel
from bedplate_modeling.expert_rows import ExpertRows
from bedplate_modeling.vocabulary import Vocabulary

CANDIDATES = 20
ITEMS = tuple(f"i{number}" for number in range(CANDIDATES))
VOCABULARY = Vocabulary(ITEMS, ("genre=a",), ("like",), ("feed",))


@dataclass(frozen=True)
class Compute:
    """Of one expert: its weights without the embedding tables, and multiply-adds (counted as two) a row."""

    weights: int
    flops_per_row: float


def compute(config: ExpertConfig) -> Compute:
    """Serving one request of twenty candidates with a full history."""
    model = ExpertModel(config, VOCABULARY, torch.zeros((len(ITEMS) + 1, 1), dtype=torch.int64)).eval()
    length = config.history_length
    history = History(
        [ITEMS[0]] * length, ["like"] * length, ["feed"] * length, np.arange(length, dtype=np.int64)
    )
    rows = ExpertRows(
        items=list(ITEMS),
        request_index_N=np.zeros(CANDIDATES, np.int64),
        histories=[history],
        request_at_ms_R=np.array([1_000_000]),
        item_features={},
        tae_ND=None
        if config.foundation_inputs == "none"
        else np.zeros((CANDIDATES, config.foundation_dim), np.float32),
    )
    batch = model.encode(rows)
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        model(batch)
    tables = sum(one.weight.numel() for one in model.modules() if isinstance(one, torch.nn.Embedding))
    weights = sum(one.numel() for one in model.parameters()) - tables
    return Compute(weights, counter.get_total_flops() / CANDIDATES)


@pytest.mark.parametrize("dim", [32, FoundationConfig.small().dim, 256])
def test_the_one_stage_baseline_costs_what_the_expert_on_tae_costs(dim: int) -> None:
    on_tae = compute(ExpertConfig.on_tae("feed", "core@2", dim))
    baseline = compute(ExpertConfig.one_stage("feed", dim))
    assert 1 <= baseline.flops_per_row / on_tae.flops_per_row < 1.02
    assert 0.95 < baseline.weights / on_tae.weights < 1.05


def test_the_figures_of_the_demos_document() -> None:
    """docs/demo.md tells them."""
    dim = FoundationConfig.small().dim
    document = (Path(__file__).parents[3] / "docs" / "demo.md").read_text(encoding="utf-8")
    for config in (ExpertConfig.one_stage("feed", dim), ExpertConfig.on_tae("feed", "core@2", dim)):
        counted = compute(config)
        assert f"{counted.flops_per_row:,.0f} | {counted.weights:,}" in document
