"""The readable dense pass, the training form and the K/V cache are one model."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bedplate_modeling.config import Variant
from bedplate_modeling.foundation import CandidateBatch, FoundationModel, HistoryBatch
from bedplate_modeling.hstu import time_bucket
from bedplate_modeling.requests import TaeRequest
from bedplate_modeling.runtime import FoundationRuntime

from .conftest import HistoryMaker, RandomModel

VARIANTS: tuple[Variant, ...] = ("research", "production")
AT_MS = 2_000_000_000_000


def _history_batch(model: FoundationModel, rows: int, size: int) -> HistoryBatch:
    torch.manual_seed(0)
    times = torch.cumsum(torch.randint(0, 5_000, (rows, size)), 1)
    return HistoryBatch(
        model.item_tokens(torch.randint(0, 31, (rows, size))),
        torch.randint(0, 3, (rows, size)),
        torch.randint(0, 3, (rows, size)),
        times,
    )


def _candidate_batch(model: FoundationModel, visible: torch.Tensor) -> CandidateBatch:
    return CandidateBatch(
        model.item_tokens(torch.randint(0, 31, visible.shape)),
        torch.randint(0, 3, visible.shape),
        torch.randint(60_000, 90_000, visible.shape),
        visible,
    )


def dense(model: FoundationModel, history: HistoryBatch, candidates: CandidateBatch) -> torch.Tensor:
    """One pass over history and candidates together under an explicit mask; the candidates come out."""
    size, asked = history.times_BN.shape[1], candidates.times_BM.shape[1]
    x_BTD = torch.cat(
        (model.history_tokens(history), model.candidate_tokens(candidates, history.times_BN)), 1
    )
    times_BT = torch.cat((history.times_BN, candidates.times_BM), 1)
    positions_BT = torch.cat((torch.arange(size).expand_as(history.times_BN), candidates.visible_BM), 1)
    allowed = torch.zeros(len(x_BTD), size + asked, size + asked, dtype=torch.bool)
    for query in range(size):
        allowed[:, query, : query + 1] = True
    for place in range(asked):
        for row in range(len(x_BTD)):
            allowed[row, size + place, : candidates.visible_BM[row, place]] = True
        allowed[:, size + place, size + place] = True
    out = model.hstu.reference(x_BTD, times_BT, positions_BT, allowed)[:, size:]
    return torch.nn.functional.layer_norm(
        out, out.shape[-1:], model.output_norm.weight, model.output_norm.bias
    )


@pytest.mark.parametrize("variant", VARIANTS)
@torch.no_grad()
def test_training_form_equals_dense_reference(variant: Variant, random_model: RandomModel) -> None:
    model = random_model(variant)
    history = _history_batch(model, rows=3, size=20)
    visible = torch.randint(0, 21, (3, 9))
    visible[0, 0], visible[1, 1] = 0, 20
    candidates = _candidate_batch(model, visible)
    torch.testing.assert_close(
        model(history, candidates), dense(model, history, candidates), atol=1e-5, rtol=0
    )


@pytest.mark.parametrize("variant", VARIANTS)
def test_cache_equals_one_pass(
    variant: Variant, random_model: RandomModel, make_history: HistoryMaker
) -> None:
    runtime = FoundationRuntime(random_model(variant))
    requests = [
        TaeRequest(
            "u", "feed", AT_MS, [f"item-{i}" for i in range(size % 5 + 1)], make_history(size, seed=size)
        )
        for size in (0, 1, 7, 13, 24, 40)
    ]
    direct = runtime.tae(requests)
    caches = []
    for request in requests:
        window = request.history.last(runtime.max_history)
        cache = runtime.prefill(window.before(int(window.event_time_ms[5])) if len(window) > 5 else window)
        caches.append(runtime.prefill(request.history, cache))
    for one, other in zip(direct, runtime.score(caches, requests), strict=True):
        np.testing.assert_allclose(one.tae_MD, other.tae_MD, atol=1e-5, rtol=0)
        np.testing.assert_allclose(one.prediction_M, other.prediction_M, atol=1e-5, rtol=0)


@pytest.mark.parametrize("variant", VARIANTS)
@torch.no_grad()
def test_one_page_of_a_window_equals_its_request(
    variant: Variant, random_model: RandomModel, make_history: HistoryMaker
) -> None:
    """What training sees of a page in the middle of a window is what serving computes for it."""
    runtime = FoundationRuntime(random_model(variant))
    model, whole = runtime.model, make_history(22, seed=4)
    at_ms = int(whole.event_time_ms[15])
    seen = len(whole.before(at_ms))
    batch = runtime._history_batch([whole])
    items = torch.tensor([[3, 4, 0]])
    candidates = CandidateBatch(
        model.item_tokens(items),
        torch.full((1, 3), 1),
        torch.full((1, 3), at_ms // 1000),
        torch.full((1, 3), seen),
    )
    served = runtime.tae([TaeRequest("u", "feed", at_ms, ["item-2", "item-3", "new"], whole)])[0]
    np.testing.assert_allclose(model(batch, candidates)[0].numpy(), served.tae_MD, atol=1e-5, rtol=0)


def test_division_is_by_the_configured_length(random_model: RandomModel) -> None:
    """Attention must not be normalised by the batch's length: padding changes nothing."""
    model = random_model("production")
    history = _history_batch(model, rows=2, size=20)
    short = HistoryBatch(
        model.item_tokens(history.items.items_BT[:, :8]),
        history.actions_BN[:, :8],
        history.surfaces_BN[:, :8],
        history.times_BN[:, :8],
    )
    candidates = _candidate_batch(model, torch.full((2, 3), 8))
    with torch.no_grad():
        torch.testing.assert_close(model(short, candidates), model(history, candidates), atol=1e-5, rtol=0)


def test_time_buckets_follow_the_published_formula() -> None:
    seconds = torch.tensor([0, 1, 2, 60, -60, 86_400, 10**15])
    expected = [0, 0, int(np.log(2) / 0.301), int(np.log(60) / 0.301), int(np.log(60) / 0.301)]
    found = time_bucket(seconds, 80).tolist()
    assert found[:5] == expected
    assert found[5] == int(np.log(86_400) / 0.301)
    assert found[6] == 79
