"""Checkpoints on disk: a directory of exactly three files, and nothing in it can run code.

* ``model.safetensors``: the weights.
* ``config.json``: architecture name, hyper-parameters, vocabularies.
* ``signature.json``: what the model reads and gives: inputs, tasks, spaces, and every tensor's dtype and
  shape.

Architectures come only from ``ARCHITECTURES`` below; pickle and torch.export files are never opened. The
signature is written last, so a directory without one is an unfinished checkpoint.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from bedplate.errors import CheckpointInvalid, InvalidRequest, SignatureMismatch
from bedplate_modeling.checkpoint_layout import CONFIG, EXPERT, FILES, FOUNDATION, SIGNATURE, WEIGHTS
from bedplate_modeling.config import ExpertConfig, FoundationConfig
from bedplate_modeling.expert import ExpertModel
from bedplate_modeling.foundation import FoundationModel
from bedplate_modeling.vocabulary import Vocabulary

FEATURE_TABLE = "feature_table"
_DTYPES = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.int64: "I64"}

Model = FoundationModel | ExpertModel


@dataclass(frozen=True)
class SpaceSpec:
    """One embedding output: ``dim``, the dtype it is to be stored in, its metric."""

    dim: int
    dtype: str
    metric: str = "inner_product"


@dataclass(frozen=True)
class TensorSpec:
    """A tensor of the safetensors file: dtype as its header names it ("F32", "I64"...), and its shape."""

    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Signature:
    """What a checkpoint reads and gives. ``to_json`` is what ``signature.json`` holds."""

    architecture: str
    inputs: Mapping[str, Any]
    tasks: tuple[str, ...]
    spaces: Mapping[str, SpaceSpec]
    tensors: Mapping[str, TensorSpec]

    def to_json(self) -> dict[str, Any]:
        return {
            "architecture": self.architecture,
            "inputs": dict(self.inputs),
            "tasks": list(self.tasks),
            "spaces": {name: asdict(space) for name, space in self.spaces.items()},
            "tensors": {
                name: {"dtype": spec.dtype, "shape": list(spec.shape)} for name, spec in self.tensors.items()
            },
        }

    @classmethod
    def from_json(cls, data: Any) -> Signature:
        """Raises CheckpointInvalid when a member is missing, unknown or of the wrong type."""
        names = {"architecture", "inputs", "tasks", "spaces", "tensors"}
        if not isinstance(data, dict) or set(data) != names:
            raise CheckpointInvalid(f"a signature has exactly the members {', '.join(sorted(names))}")
        try:
            return cls(
                str(data["architecture"]),
                dict(data["inputs"]),
                tuple(str(task) for task in data["tasks"]),
                {name: SpaceSpec(**space) for name, space in data["spaces"].items()},
                {
                    name: TensorSpec(str(spec["dtype"]), tuple(int(size) for size in spec["shape"]))
                    for name, spec in data["tensors"].items()
                },
            )
        except (TypeError, KeyError, ValueError, AttributeError) as error:
            raise CheckpointInvalid(f"the signature is malformed: {error}") from error


@dataclass(frozen=True)
class Architecture:
    """How one kind of model is built from its configuration, and what its signature says."""

    config: Callable[[Mapping[str, Any]], Any]
    build: Callable[[Any, Vocabulary, Tensor], Model]
    describe: Callable[[Any, Vocabulary], tuple[dict[str, Any], tuple[str, ...], dict[str, SpaceSpec]]]


def _describe_foundation(
    config: FoundationConfig, vocabulary: Vocabulary
) -> tuple[dict[str, Any], tuple[str, ...], dict[str, SpaceSpec]]:
    names = sorted({key.split("=", 1)[0] for key in vocabulary.features})
    inputs = {
        "history": ["item", "action", "surface", "event_time_ms"],
        "candidate": ["item", "surface"],
        "item_features": names,
        "max_history": config.max_history,
    }
    tasks = ("main", "action", *(f"surface/{surface}" for surface in vocabulary.surfaces))
    space = SpaceSpec(config.dim, config.storage_dtype)
    tae = SpaceSpec(config.dim, "float32" if config.storage_dtype == "float32" else "float16")
    return inputs, tasks, {"tae": tae, "item": space, "user": space}


def _describe_expert(
    config: ExpertConfig, vocabulary: Vocabulary
) -> tuple[dict[str, Any], tuple[str, ...], dict[str, SpaceSpec]]:
    inputs = {
        "surface": config.surface,
        "history": ["item", "action", "event_time_ms"],
        "history_length": config.history_length,
        "foundation_inputs": config.foundation_inputs,
        "foundation_version": config.foundation_version,
        "foundation_dim": config.foundation_dim,
        "foundation_spaces": list(config.spaces),
    }
    return inputs, ("main",), {}


ARCHITECTURES: Mapping[str, Architecture] = {
    FOUNDATION: Architecture(FoundationConfig.from_json, FoundationModel, _describe_foundation),
    EXPERT: Architecture(ExpertConfig.from_json, ExpertModel, _describe_expert),
}
"""The only architectures a checkpoint may name."""


def architecture_of(model: Model) -> str:
    return FOUNDATION if isinstance(model, FoundationModel) else EXPERT


def _tensor_specs(model: nn.Module) -> dict[str, TensorSpec]:
    return {
        name: TensorSpec(_DTYPES[tensor.dtype], tuple(tensor.shape))
        for name, tensor in sorted(model.state_dict().items())
    }


def signature_of(model: Model) -> Signature:
    """The signature a model's checkpoint carries."""
    name = architecture_of(model)
    inputs, tasks, spaces = ARCHITECTURES[name].describe(model.config, model.vocabulary)
    return Signature(name, inputs, tasks, spaces, _tensor_specs(model))


def save_checkpoint(directory: str | Path, model: Model) -> Signature:
    """Writes the three files; the same model gives the same bytes.

    Raises CheckpointInvalid if the directory already holds something.
    """
    path = Path(directory)
    path.mkdir(parents=True, exist_ok=True)
    if any(path.iterdir()):
        raise CheckpointInvalid(f"{path} is not empty; a checkpoint is never overwritten")
    signature = signature_of(model)
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    save_file(tensors, path / WEIGHTS)
    config = {
        "architecture": signature.architecture,
        "hyper_parameters": model.config.to_json(),
        "vocabulary": model.vocabulary.to_json(),
    }
    _write_json(path / CONFIG, config)
    _write_json(path / SIGNATURE, signature.to_json())
    return signature


def _write_json(path: Path, data: Any) -> None:
    path.write_text(json.dumps(data, ensure_ascii=False, sort_keys=True, indent=1) + "\n", encoding="utf-8")


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise CheckpointInvalid(f"{path.name} is not JSON: {error}") from error


def verify_checkpoint(directory: str | Path) -> Signature:
    """Checks a checkpoint without loading its weights.

    The safetensors header, the signature and the tensors that the named architecture has under these
    hyper-parameters and vocabularies must agree, name by name, in dtype and shape.

    Raises:
        CheckpointInvalid: missing or surplus files, a file that is not what its name says, an unknown
            architecture, hyper-parameters out of range. SignatureMismatch (a CheckpointInvalid): header,
            signature and configuration disagree.
    """
    return _verified(Path(directory))[0]


def _verified(path: Path) -> tuple[Signature, Model]:
    """The signature, and the model on the meta device (shapes only)."""
    _check_files(path)
    signature = Signature.from_json(_read_json(path / SIGNATURE))
    header = _header(path / WEIGHTS)
    _compare(header, signature.tensors, "the safetensors file", "the signature")
    model = _skeleton(_read_json(path / CONFIG), header)
    expected = signature_of(model)
    _compare(signature.tensors, expected.tensors, "the signature", "the architecture")
    for name in ("architecture", "inputs", "tasks", "spaces"):
        said, due = getattr(signature, name), getattr(expected, name)
        if said != due:
            raise SignatureMismatch(f"the signature says {name} {said!r}, the configuration gives {due!r}")
    return signature, model


def _check_files(path: Path) -> None:
    if not path.is_dir():
        raise CheckpointInvalid(f"{path} is not a directory")
    found = {entry.name for entry in path.iterdir()}
    if missing := sorted(set(FILES) - found):
        raise CheckpointInvalid(f"the checkpoint lacks {', '.join(missing)}")
    if surplus := sorted(found - set(FILES)):
        raise CheckpointInvalid(f"a checkpoint holds only {', '.join(FILES)}; remove {', '.join(surplus)}")


def _header(path: Path) -> dict[str, TensorSpec]:
    try:
        with safe_open(path, framework="numpy") as file:
            found = {}
            for name in file.keys():  # noqa: SIM118  # not a mapping
                tensor = file.get_slice(name)
                found[name] = TensorSpec(tensor.get_dtype(), tuple(tensor.get_shape()))
            return found
    except (SafetensorError, OSError) as error:
        raise CheckpointInvalid(f"{path.name} is not a safetensors file: {error}") from error


def _compare(
    found: Mapping[str, TensorSpec], wanted: Mapping[str, TensorSpec], found_in: str, wanted_by: str
) -> None:
    if missing := sorted(set(wanted) - set(found)):
        raise SignatureMismatch(f"{found_in} lacks tensors of {wanted_by}: {', '.join(missing[:5])}")
    if surplus := sorted(set(found) - set(wanted)):
        raise SignatureMismatch(f"{found_in} has tensors unknown to {wanted_by}: {', '.join(surplus[:5])}")
    for name, spec in found.items():
        if spec != wanted[name]:
            raise SignatureMismatch(
                f"tensor {name}: {found_in} has {spec.dtype} {list(spec.shape)}, "
                f"{wanted_by} {wanted[name].dtype} {list(wanted[name].shape)}"
            )


def _skeleton(config: Any, header: Mapping[str, TensorSpec]) -> Model:
    if not isinstance(config, dict) or set(config) != {"architecture", "hyper_parameters", "vocabulary"}:
        raise CheckpointInvalid("config.json holds exactly architecture, hyper_parameters and vocabulary")
    architecture = ARCHITECTURES.get(str(config["architecture"]))
    if architecture is None:
        known = ", ".join(ARCHITECTURES)
        raise CheckpointInvalid(f"unknown architecture {config['architecture']!r}; known are {known}")
    table = header.get(FEATURE_TABLE)
    if table is None or len(table.shape) != 2:
        raise SignatureMismatch(f"the tensor {FEATURE_TABLE} is missing or not a matrix")
    try:
        hyper_parameters = architecture.config(config["hyper_parameters"])
        vocabulary = Vocabulary.from_json(config["vocabulary"])
    except (InvalidRequest, TypeError) as error:
        raise CheckpointInvalid(f"config.json: {error}") from error
    rows = len(vocabulary.items) + 1
    with torch.device("meta"):
        empty = torch.empty((rows, table.shape[1]), dtype=torch.int64)
        return architecture.build(hyper_parameters, vocabulary, empty)


def _load(directory: str | Path) -> Model:
    path = Path(directory)
    _, model = _verified(path)
    # Copies, because tensors in the mapped file are not aligned, which changes the last bit of some products.
    tensors = {name: tensor.clone() for name, tensor in load_file(path / WEIGHTS).items()}
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise CheckpointInvalid(f"tensor {name} holds NaN or infinite values")
    table = tensors[FEATURE_TABLE]
    if table.numel() and (int(table.min()) < 0 or int(table.max()) > len(model.vocabulary.features)):
        raise CheckpointInvalid(f"{FEATURE_TABLE} points outside the vocabulary of features")
    model.load_state_dict(tensors, strict=True, assign=True)
    return model.requires_grad_(False).eval()


def load_foundation(directory: str | Path) -> FoundationModel:
    """The verified model in eval mode, without gradients; raises CheckpointInvalid like
    ``verify_checkpoint``."""
    model = _load(directory)
    if not isinstance(model, FoundationModel):
        raise CheckpointInvalid("the checkpoint is an expert, not a foundation model")
    return model


def load_expert(directory: str | Path) -> ExpertModel:
    """The verified model in eval mode, without gradients; raises CheckpointInvalid like
    ``verify_checkpoint``."""
    model = _load(directory)
    if not isinstance(model, ExpertModel):
        raise CheckpointInvalid("the checkpoint is a foundation model, not an expert")
    return model
