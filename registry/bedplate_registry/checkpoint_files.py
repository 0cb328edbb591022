"""What the files of a checkpoint may be, and whether they hold what their signature says.

Weights come as safetensors and nothing else: a pickle, and a torch.export file too, runs code when loaded.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from safetensors import SafetensorError, safe_open

from bedplate.errors import CheckpointInvalid, SignatureMismatch
from bedplate.wire.registry import FileManifest, Signature, SpaceSignature, TensorSignature

_TEXT_BYTES_MAX = 256 * 2**20  # parsed in memory when the version is finalised
_SHOWN = 5


@dataclass(frozen=True)
class CheckpointPolicy:
    """What may be published: whoever composes the platform knows which models it can load; the registry
    does not.

    Attributes:
        architectures: the names a signature may give.
        weights, config, signature: the names of the three files; a checkpoint has these and no others.
    """

    architectures: tuple[str, ...]
    weights: str
    config: str
    signature: str

    @property
    def files(self) -> tuple[str, ...]:
        return (self.weights, self.config, self.signature)


def check_announced(files: Sequence[FileManifest], signature: Signature, policy: CheckpointPolicy) -> None:
    """Whether such files of such a model may make up a checkpoint; nothing has to be uploaded yet.

    Raises:
        CheckpointInvalid: a name twice, a file too many or missing, or an architecture nobody here can load.
    """
    names = [file.name for file in files]
    allowed = f"a checkpoint is exactly {', '.join(policy.files)}"
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise CheckpointInvalid(f"{', '.join(twice)}: listed twice; list every file once.")
    if surplus := sorted(set(names) - set(policy.files)):
        raise CheckpointInvalid(
            f"{', '.join(surplus[:_SHOWN])}: not accepted; {allowed}. Leave out every other file.",
            file=surplus[0],
        )
    if missing := [name for name in policy.files if name not in names]:
        raise CheckpointInvalid(f"{' and '.join(missing)}: missing; {allowed}.", file=missing[0])
    for file in files:
        if file.name != policy.weights and file.bytes > _TEXT_BYTES_MAX:
            raise CheckpointInvalid(
                f"{file.name}: over {_TEXT_BYTES_MAX} bytes; tables of that size belong into "
                f"{policy.weights}.",
                file=file.name,
            )
    if signature.architecture not in policy.architectures:
        raise CheckpointInvalid(
            f"Architecture {signature.architecture!r} cannot be loaded here; accepted "
            f"{'is' if len(policy.architectures) == 1 else 'are'} {', '.join(policy.architectures)}.",
            architectures=list(policy.architectures),
        )


def check_contents(paths: Mapping[str, Path], signature: Signature, policy: CheckpointPolicy) -> None:
    """Whether the files on disk are what their names and the announced signature promise.

    Raises:
        CheckpointInvalid: a file is not of the type its name says.
        SignatureMismatch: tensors, architecture or spaces differ from the signature.
    """
    weights = read_header(policy.weights, paths[policy.weights])
    _raise_differences(
        policy.weights, _tensor_differences(weights, signature.tensors, "the file", "the signature")
    )
    config = _read_object(policy.config, paths[policy.config])
    _check_architecture(policy.config, config.get("architecture"), signature)
    _check_signature_file(policy.signature, paths[policy.signature], signature)


def read_header(name: str, path: Path) -> dict[str, TensorSignature]:
    """Dtype and shape of every tensor; offsets, sizes and overlaps are verified against the file.

    Raises:
        CheckpointInvalid: it is not a well-formed safetensors file.
    """
    try:
        with safe_open(path, framework="np") as file:
            slices = {key: file.get_slice(key) for key in file.keys()}  # noqa: SIM118  # not a mapping
            return {
                key: TensorSignature(dtype=tensor.get_dtype(), shape=list(tensor.get_shape()))
                for key, tensor in slices.items()
            }
    except SafetensorError as error:
        raise CheckpointInvalid(
            f"{name} is not a well-formed safetensors file ({error}); write it with safetensors and "
            "upload it again.",
            file=name,
        ) from error


def manifest_digest(files: Sequence[FileManifest]) -> str:
    """SHA-256 over the canonical JSON of [name, sha256, bytes] of every file, by name: how a file was cut
    into parts does not matter.
    """
    content = [[file.name, file.sha256, file.bytes] for file in sorted(files, key=lambda file: file.name)]
    return hashlib.sha256(json.dumps(content, separators=(",", ":")).encode()).hexdigest()


def _tensor_differences(
    found: Mapping[str, TensorSignature],
    announced: Mapping[str, TensorSignature],
    here: str,
    there: str,
) -> list[str]:
    differences = [f"{name} is in {there} only" for name in sorted(announced.keys() - found.keys())]
    differences += [f"{name} is in {here} only" for name in sorted(found.keys() - announced.keys())]
    for name in sorted(found.keys() & announced.keys()):
        have, want = found[name], announced[name]
        if have != want:
            differences.append(
                f"{name} is {have.dtype}{have.shape} in {here}, {want.dtype}{want.shape} in {there}"
            )
    return differences


def _raise_differences(name: str, differences: Sequence[str]) -> None:
    if differences:
        more = f", and {len(differences) - _SHOWN} more" if len(differences) > _SHOWN else ""
        raise SignatureMismatch(
            f"{name} does not match the signature: {'; '.join(differences[:_SHOWN])}{more}. "
            "Amend the draft (its signature, or its files and upload them again), then finalise.",
            differences=list(differences[:100]),
        )


def _check_architecture(name: str, found: Any, signature: Signature) -> None:
    if found != signature.architecture:
        raise SignatureMismatch(
            f"{name} says architecture {found!r}, the signature {signature.architecture!r}. Amend the "
            "draft so that both say the same, then finalise."
        )


def _check_signature_file(name: str, path: Path, announced: Signature) -> None:
    """The file is what a model is loaded by, the announced signature what the platform goes by."""
    content = _read_object(name, path)
    try:
        found = Signature.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise CheckpointInvalid(
            f"{name} is not a signature ({where}: {first['msg']}); mend it and upload it again.", file=name
        ) from error
    _check_architecture(name, found.architecture, announced)
    differences = _tensor_differences(found.tensors, announced.tensors, "the file", "the announced one")
    for space in sorted(found.spaces.keys() | announced.spaces.keys()):
        have, want = (_vectors(one.spaces.get(space)) for one in (found, announced))
        if have != want:
            differences.append(f"space {space} is {have} in the file, {want} in the announced one")
    _raise_differences(name, differences)


def _vectors(space: SpaceSignature | None) -> str:
    """What the model decides of a space; entity and key type are its owner's to announce."""
    return "missing" if space is None else f"{space.dtype}[{space.dim}] by {space.metric}"


def _read_object(name: str, path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes().decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise CheckpointInvalid(
            f"{name} is not JSON in UTF-8 ({error}); mend it and upload it again.", file=name
        ) from error
    if not isinstance(content, dict):
        raise CheckpointInvalid(f"{name} has to be a JSON object; mend it and upload it again.", file=name)
    return content
