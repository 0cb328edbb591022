"""What the files of a checkpoint may be, and whether they hold what their signature says.

Weights come as safetensors and nothing else: a pickle, and a torch.export file too, runs code when loaded.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

from safetensors import SafetensorError, safe_open

from bedplate.errors import CheckpointInvalid, SignatureMismatch
from bedplate.wire.registry import FileManifest, Signature, TensorSignature

WEIGHTS = "model.safetensors"
CONFIG = "config.json"
_SUFFIXES = (".safetensors", ".json", ".md", ".txt")
_TEXT_BYTES_MAX = 256 * 2**20  # parsed in memory when the version is finalised
_SHOWN = 5


def check_manifest(files: Sequence[FileManifest]) -> None:
    """Whether these files may make up a checkpoint; nothing has to be uploaded yet.

    Raises:
        CheckpointInvalid: a name twice, a type that is not accepted, or weights or config missing.
    """
    names = [file.name for file in files]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise CheckpointInvalid(f"{', '.join(twice)}: listed twice; list every file once.")
    for file in files:
        name, suffix = file.name, PurePosixPath(file.name).suffix
        if suffix != ".safetensors" and file.bytes > _TEXT_BYTES_MAX:
            raise CheckpointInvalid(
                f"{name}: over {_TEXT_BYTES_MAX} bytes; tables of that size belong into {WEIGHTS}.", file=name
            )
        if suffix not in _SUFFIXES:
            raise CheckpointInvalid(
                f"{name}: this type of file is not accepted, because loading it may run code. "
                f"Send weights as {WEIGHTS}; accepted are {', '.join(_SUFFIXES)}.",
                file=name,
            )
    missing = [name for name in (WEIGHTS, CONFIG) if name not in names]
    if missing:
        raise CheckpointInvalid(f"{' and '.join(missing)}: missing; a checkpoint is {WEIGHTS} and {CONFIG}.")


def check_contents(paths: Mapping[str, Path], signature: Signature) -> None:
    """Whether the files on disk are what their names and the signature promise.

    Raises:
        CheckpointInvalid: a file is not of the type its name says.
        SignatureMismatch: tensors or architecture differ from the signature.
    """
    for name, path in paths.items():
        suffix = path.suffix
        if suffix == ".safetensors":
            tensors = read_header(name, path)
            if name == WEIGHTS:
                _compare(tensors, signature.tensors)
        elif suffix == ".json":
            _check_json(name, path, signature)
        else:
            _read_text(name, path)


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


def _compare(found: Mapping[str, TensorSignature], announced: Mapping[str, TensorSignature]) -> None:
    differences = [f"{name} is in the signature only" for name in sorted(announced.keys() - found.keys())]
    differences += [f"{name} is in the file only" for name in sorted(found.keys() - announced.keys())]
    for name in sorted(found.keys() & announced.keys()):
        have, want = found[name], announced[name]
        if have != want:
            differences.append(
                f"{name} is {have.dtype}{have.shape} in the file, {want.dtype}{want.shape} in the signature"
            )
    if differences:
        more = f", and {len(differences) - _SHOWN} more" if len(differences) > _SHOWN else ""
        raise SignatureMismatch(
            f"{WEIGHTS} does not match the signature: {'; '.join(differences[:_SHOWN])}{more}. "
            "Amend the draft (its signature, or its files and upload them again), then finalise.",
            differences=differences[:100],
        )


def _check_json(name: str, path: Path, signature: Signature) -> None:
    try:
        content = json.loads(_read_text(name, path))
    except (ValueError, RecursionError) as error:
        raise CheckpointInvalid(
            f"{name} is not JSON ({error}); mend it and upload it again.", file=name
        ) from error
    if name != CONFIG:
        return
    if not isinstance(content, dict):
        raise CheckpointInvalid(f"{name} has to be a JSON object; mend it and upload it again.", file=name)
    architecture = content.get("architecture", signature.architecture)
    if architecture != signature.architecture:
        raise SignatureMismatch(
            f"{name} says architecture {architecture!r}, the signature {signature.architecture!r}. Amend the "
            "draft so that both say the same, then finalise."
        )


def _read_text(name: str, path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise CheckpointInvalid(
            f"{name} is not UTF-8 text; mend it and upload it again.", file=name
        ) from error
