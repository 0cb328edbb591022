"""Experts on logged embeddings, against the same network without them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from bedplate_modeling.checkpoints import load_foundation, save_checkpoint, verify_checkpoint
from bedplate_modeling.config import ConfigInvalid, ExpertConfig
from bedplate_modeling.events import History
from bedplate_modeling.expert_rows import ExpertRows, ExpertRowsInvalid
from bedplate_modeling.expert_training import train_expert
from bedplate_modeling.foundation import FoundationModel
from bedplate_modeling.metrics import normalized_entropy
from bedplate_modeling.requests import TaeRequest
from bedplate_modeling.runtime import ExpertRuntime, FoundationRuntime
from bedplate_modeling.training import TrainingDataInvalid

from .conftest import World

AT_MS = 10_000_000


def _own(history: History) -> History:
    """The events of the surface "narrow"."""
    places = [place for place, surface in enumerate(history.surfaces) if surface == "narrow"]
    return History(
        [history.items[p] for p in places],
        [history.actions[p] for p in places],
        [history.surfaces[p] for p in places],
        history.event_time_ms[places],
    )


@pytest.fixture(scope="module")
def logged(world: World, trained: FoundationModel) -> tuple[ExpertRows, ExpertRows]:
    """Rows of the surface "narrow" with TAE as served: to train on, and later ones to evaluate."""
    events = world.events
    surfaces, users, items = events.surface.decode(), events.user.decode(), events.item.decode()
    runtime = FoundationRuntime(trained)

    def rows(chosen: np.ndarray[tuple[int], np.dtype[np.int64]]) -> ExpertRows:
        times = events.event_time_ms[chosen]
        histories = [events.history(users[row], int(at)) for row, at in zip(chosen, times, strict=True)]
        requests = [
            TaeRequest(users[row], "narrow", int(at), [items[row]], history)
            for row, at, history in zip(chosen, times, histories, strict=True)
        ]
        return ExpertRows(
            items=[items[row] for row in chosen],
            request_index_N=np.arange(len(chosen)),
            histories=[_own(history) for history in histories],
            request_at_ms_R=times,
            tae_ND=np.concatenate([result.tae_MD for result in runtime.tae(requests)]),
            item_features={"item-1": {"colour": "c1"}},
            label_N=events.label[chosen],
        )

    narrow = surfaces == "narrow"
    return (
        rows(np.flatnonzero(narrow & ~world.before(0.6) & world.before(0.85))),
        rows(np.flatnonzero(narrow & ~world.before(0.85))),
    )


def _on_tae(**changes: int) -> ExpertConfig:
    return ExpertConfig.on_tae("narrow", "core@1", 32, batch_rows=64, epochs=6, **changes)


def test_an_expert_on_tae_beats_the_one_stage_expert(logged: tuple[ExpertRows, ExpertRows]) -> None:
    train, later = logged
    assert later.label_N is not None
    found = {}
    for config in (_on_tae(), ExpertConfig.one_stage("narrow", batch_rows=64, epochs=6)):
        scores = ExpertRuntime(train_expert(train, config, seed=1, threads=1)).score(later)
        found[config.foundation_inputs] = normalized_entropy(later.label_N, scores)
    assert found["tae"] < found["none"] - 0.05
    assert found["tae"] < 0.9


def test_served_scores_equal_offline_scores(logged: tuple[ExpertRows, ExpertRows], tmp_path: Path) -> None:
    train, later = logged
    model = train_expert(train, _on_tae(), seed=1, threads=1)
    offline = ExpertRuntime(model).score(later)
    save_checkpoint(tmp_path / "expert", model)
    served = ExpertRuntime.load(tmp_path / "expert")
    np.testing.assert_allclose(served.score(later), offline, atol=1e-6)
    one = replace(
        later,
        items=later.items[5:6],
        request_index_N=np.zeros(1, np.int64),
        histories=later.histories[5:6],
        request_at_ms_R=later.request_at_ms_R[5:6],
        tae_ND=None if later.tae_ND is None else later.tae_ND[5:6],
    )
    np.testing.assert_allclose(served.score(one), offline[5:6], atol=1e-6)
    signature = verify_checkpoint(tmp_path / "expert")
    assert signature.architecture == "fm-expert"
    assert signature.inputs["foundation_spaces"] == ["core@1/tae"]
    assert signature.inputs["foundation_version"] == "core@1"
    with pytest.raises(Exception, match="not a foundation model"):
        load_foundation(tmp_path / "expert")


def test_same_seed_same_expert(logged: tuple[ExpertRows, ExpertRows]) -> None:
    train, _ = logged
    one, two = (train_expert(train, _on_tae(), seed=3, threads=1) for _ in range(2))
    for name, tensor in one.state_dict().items():
        assert torch.equal(tensor, two.state_dict()[name])


def _rows(**changes: object) -> ExpertRows:
    history = History(["item-1", "item-2"], ["like", "skip"], ["narrow"] * 2, np.array([1_000, 2_000]))
    rows = ExpertRows(
        items=["item-1", "item-2", "item-3", "never-seen"],
        request_index_N=np.array([0, 0, 1, 1]),
        histories=[history, History.empty()],
        request_at_ms_R=np.array([AT_MS, AT_MS]),
        user_vectors_ND=np.ones((4, 3), np.float32),
        item_vectors_ND=np.ones((4, 3), np.float32),
        user_found_N=np.array([True, True, False, False]),
        item_found_N=np.array([True, True, True, False]),
        label_N=np.array([1, 0, 1, 0], np.float32),
    )
    return replace(rows, **changes)  # type: ignore[arg-type]


ON_VECTORS = ExpertConfig.on_vectors("narrow", "core@2", 3, epochs=2)


def test_vectors_that_were_not_found_are_ignored() -> None:
    expert = ExpertRuntime(train_expert(_rows(), ON_VECTORS))
    junk = np.ones((4, 3), np.float32)
    junk[2:] = 99
    assert np.array_equal(expert.score(_rows()), expert.score(_rows(user_vectors_ND=junk)))
    assert not np.array_equal(expert.score(_rows()), expert.score(_rows(user_vectors_ND=junk + 1)))


def test_a_score_does_not_depend_on_other_rows() -> None:
    expert = ExpertRuntime(train_expert(_rows(), ON_VECTORS))
    whole = expert.score(_rows())
    for place in range(4):
        alone = _rows(
            items=[_rows().items[place]],
            request_index_N=_rows().request_index_N[place : place + 1],
            user_vectors_ND=np.ones((1, 3), np.float32),
            item_vectors_ND=np.ones((1, 3), np.float32),
            user_found_N=np.array([place < 2]),
            item_found_N=np.array([place < 3]),
        )
        np.testing.assert_allclose(expert.score(alone), whole[place], atol=1e-6)
    assert expert.score(_rows(items=[], request_index_N=np.zeros(0, np.int64))).shape == (0,)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"request_index_N": np.array([0, 0, 1])}, "request indices"),
        ({"request_index_N": np.array([0, 0, 1, 2])}, r"0\.\.1"),
        ({"request_at_ms_R": np.array([AT_MS])}, "request times"),
        ({"request_at_ms_R": np.array([2_000, AT_MS])}, "does not end before"),
        ({"user_vectors_ND": None}, "missing"),
        ({"item_vectors_ND": np.ones((4, 2), np.float32)}, "shape"),
        ({"item_vectors_ND": np.full((4, 3), np.nan, np.float32)}, "NaN"),
        ({"user_found_N": None}, "boolean"),
        ({"label_N": None}, "label"),
    ],
)
def test_rows_that_do_not_fit_say_why(changes: dict[str, object], reason: str) -> None:
    with pytest.raises(ExpertRowsInvalid, match=reason):
        train_expert(_rows(**changes), ON_VECTORS)


def test_labels_of_one_class_are_refused() -> None:
    with pytest.raises(TrainingDataInvalid, match="both classes"):
        train_expert(_rows(label_N=np.ones(4, np.float32)), ON_VECTORS)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"foundation_inputs": "magic"}, "foundation_inputs"),
        ({"spaces": ("core@1/tae",)}, "pinned version"),
        ({"spaces": ()}, "reads 1 spaces"),
        ({"foundation_version": None}, "foundation_version"),
        ({"foundation_dim": 0}, "foundation_dim"),
        ({"dropout": 1.0}, "dropout"),
        ({"heads": 3}, "divisible"),
        ({"surface": ""}, "surface"),
    ],
)
def test_configurations_that_cannot_be_say_why(changes: dict[str, object], reason: str) -> None:
    good = ExpertConfig.on_tae("feed", "core@2", 64)
    assert ExpertConfig.from_json(good.to_json()) == good
    with pytest.raises(ConfigInvalid, match=reason):
        ExpertConfig.from_json({**good.to_json(), **changes})
