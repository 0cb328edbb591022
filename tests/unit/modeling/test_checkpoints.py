"""A checkpoint that was tampered with, or is not one, is refused with a reason, and no byte of it is
executed."""

from __future__ import annotations

import dataclasses
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from bedplate.errors import BedplateError, CheckpointInvalid, SignatureMismatch
from bedplate_modeling.checkpoints import (
    load_expert,
    load_foundation,
    save_checkpoint,
    signature_of,
    verify_checkpoint,
)

from .conftest import RandomModel


@pytest.fixture
def checkpoint(tmp_path: Path, random_model: RandomModel) -> Path:
    path = tmp_path / "checkpoint"
    save_checkpoint(path, random_model("research"))
    return path


def _edit(path: Path, change: Callable[[Any], None]) -> None:
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))


def test_round_trip(checkpoint: Path, random_model: RandomModel) -> None:
    model = random_model("research")
    loaded = load_foundation(checkpoint)
    assert loaded.config == model.config
    assert loaded.vocabulary == model.vocabulary
    assert not loaded.training
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, loaded.state_dict()[name])
    assert verify_checkpoint(checkpoint) == signature_of(model)


def test_the_signature_names_inputs_tasks_and_spaces(checkpoint: Path) -> None:
    signature = json.loads((checkpoint / "signature.json").read_text())
    assert signature["architecture"] == "hstu-foundation"
    assert signature["tasks"] == ["main", "action", "surface/feed", "surface/reels"]
    assert signature["spaces"]["tae"] == {"dim": 16, "dtype": "float16", "metric": "inner_product"}
    assert set(signature["spaces"]) == {"tae", "item", "user"}
    assert signature["inputs"]["max_history"] == 24
    assert signature["tensors"]["main_head.weight"] == {"dtype": "F32", "shape": [1, 16]}


def test_compressed_spaces_leave_the_logged_embeddings_as_numbers(random_model: RandomModel) -> None:
    model = random_model("research")
    model.config = dataclasses.replace(model.config, storage_dtype="int8")
    assert {name: space.dtype for name, space in signature_of(model).spaces.items()} == {
        "tae": "float16",
        "item": "int8",
        "user": "int8",
    }


def test_equal_models_give_equal_bytes(checkpoint: Path, tmp_path: Path, random_model: RandomModel) -> None:
    save_checkpoint(tmp_path / "again", random_model("research"))
    for name in ("model.safetensors", "config.json", "signature.json"):
        assert (checkpoint / name).read_bytes() == (tmp_path / "again" / name).read_bytes()


def test_nothing_is_overwritten(checkpoint: Path, random_model: RandomModel) -> None:
    with pytest.raises(CheckpointInvalid, match="never overwritten"):
        save_checkpoint(checkpoint, random_model("research"))


class _Bomb:
    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("exploded"),))


def test_pickle_is_refused_and_not_run(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (checkpoint / "model.safetensors").write_bytes(pickle.dumps(_Bomb()))
    for load in (verify_checkpoint, load_foundation):
        with pytest.raises(CheckpointInvalid, match="not a safetensors file"):
            load(checkpoint)
    assert not (tmp_path / "exploded").exists()


def test_a_pickle_beside_the_weights_is_refused(checkpoint: Path) -> None:
    (checkpoint / "model.pt").write_bytes(pickle.dumps(_Bomb()))
    with pytest.raises(CheckpointInvalid, match=r"remove model\.pt"):
        verify_checkpoint(checkpoint)


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "signature.json"])
def test_a_missing_file_is_named(checkpoint: Path, name: str) -> None:
    (checkpoint / name).unlink()
    with pytest.raises(CheckpointInvalid, match=f"lacks {name}"):
        verify_checkpoint(checkpoint)


def test_flipped_header_bytes_are_refused(checkpoint: Path) -> None:
    weights = checkpoint / "model.safetensors"
    good = weights.read_bytes()
    header = int.from_bytes(good[:8], "little")
    for place in (0, 3, 8, 20, 8 + header // 2):
        weights.write_bytes(good[:place] + bytes([good[place] ^ 0x41]) + good[place + 1 :])
        with pytest.raises(CheckpointInvalid):
            verify_checkpoint(checkpoint)
    weights.write_bytes(good[:-4])
    with pytest.raises(CheckpointInvalid):
        verify_checkpoint(checkpoint)


def _resave(checkpoint: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
    tensors = load_file(checkpoint / "model.safetensors")
    change(tensors)
    save_file(tensors, checkpoint / "model.safetensors")


TENSOR_CHANGES: list[Callable[[dict[str, torch.Tensor]], Any]] = [
    lambda tensors: tensors.update({"main_head.weight": torch.zeros(1, 17)}),
    lambda tensors: tensors.update({"main_head.weight": torch.zeros(1, 16, dtype=torch.float64)}),
    lambda tensors: tensors.update({"extra": torch.zeros(1)}),
    lambda tensors: tensors.pop("query"),
]


@pytest.mark.parametrize("change", TENSOR_CHANGES)
def test_tensors_that_differ_from_the_signature_are_refused(
    checkpoint: Path, change: Callable[[dict[str, torch.Tensor]], None]
) -> None:
    _resave(checkpoint, change)
    with pytest.raises(SignatureMismatch):
        verify_checkpoint(checkpoint)


def test_signature_and_weights_that_agree_must_still_fit_the_architecture(checkpoint: Path) -> None:
    _resave(checkpoint, lambda tensors: tensors.update({"main_head.weight": torch.zeros(1, 17)}))
    _edit(
        checkpoint / "signature.json",
        lambda data: data["tensors"]["main_head.weight"].update(shape=[1, 17]),
    )
    with pytest.raises(SignatureMismatch, match=r"main_head\.weight.*architecture"):
        load_foundation(checkpoint)


def test_values_that_would_break_serving_are_refused(checkpoint: Path) -> None:
    _resave(checkpoint, lambda tensors: tensors["query"].fill_(float("nan")))
    with pytest.raises(CheckpointInvalid, match="query holds NaN"):
        load_foundation(checkpoint)


def test_a_feature_table_outside_the_vocabulary_is_refused(checkpoint: Path) -> None:
    _resave(checkpoint, lambda tensors: tensors["feature_table"].fill_(4))
    with pytest.raises(CheckpointInvalid, match="outside the vocabulary"):
        load_foundation(checkpoint)


CONFIG_CHANGES: list[tuple[str, Callable[[Any], Any], str]] = [
    ("config.json", lambda data: data.update(architecture="os.system"), "unknown architecture"),
    ("config.json", lambda data: data["hyper_parameters"].update(dim=15), "not divisible"),
    ("config.json", lambda data: data["hyper_parameters"].update(layers=10**9), "at most"),
    ("config.json", lambda data: data["hyper_parameters"].update(hook="x"), "knows no hook"),
    ("config.json", lambda data: data["hyper_parameters"].update(max_history="24"), "integer"),
    ("config.json", lambda data: data["vocabulary"].update(items="abc"), "list of strings"),
    ("config.json", lambda data: data["vocabulary"]["items"].pop(), "architecture"),
    ("config.json", lambda data: data.pop("vocabulary"), "exactly"),
    ("signature.json", lambda data: data.update(architecture="fm-expert"), "architecture"),
    ("signature.json", lambda data: data["spaces"]["tae"].update(dim=64), "spaces"),
    ("signature.json", lambda data: data["tasks"].append("buy"), "tasks"),
    ("signature.json", lambda data: data.pop("inputs"), "exactly"),
    ("signature.json", lambda data: data.update(spaces=[1]), "malformed"),
]


@pytest.mark.parametrize(("name", "change", "reason"), CONFIG_CHANGES)
def test_altered_descriptions_are_refused(
    checkpoint: Path, name: str, change: Callable[[Any], None], reason: str
) -> None:
    _edit(checkpoint / name, change)
    with pytest.raises(CheckpointInvalid, match=reason) as caught:
        verify_checkpoint(checkpoint)
    assert isinstance(caught.value, BedplateError)


def test_not_json_and_not_a_directory(checkpoint: Path) -> None:
    (checkpoint / "config.json").write_bytes(b"\xff{")
    with pytest.raises(CheckpointInvalid, match="not JSON"):
        verify_checkpoint(checkpoint)
    with pytest.raises(CheckpointInvalid, match="not a directory"):
        verify_checkpoint(checkpoint / "nowhere")


def test_a_foundation_is_not_an_expert(checkpoint: Path) -> None:
    with pytest.raises(CheckpointInvalid, match="not an expert"):
        load_expert(checkpoint)
