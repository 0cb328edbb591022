from __future__ import annotations

import json
import struct

import numpy as np
import pytest
from safetensors.numpy import save_file

from bedplate.errors import CheckpointInvalid, SignatureMismatch
from bedplate.wire.registry import FileManifest, Signature, TensorSignature
from bedplate_registry.checkpoint_files import (
    CheckpointPolicy,
    check_announced,
    check_contents,
    manifest_digest,
    read_header,
)

POLICY = CheckpointPolicy(("hstu", "next"), "model.safetensors", "config.json", "signature.json")
SIGNATURE = Signature(architecture="hstu", tensors={"a": TensorSignature(dtype="F32", shape=[1])})


def _file(name: str, **members) -> FileManifest:
    return FileManifest(**({"name": name, "sha256": "0" * 64, "bytes": 1} | members))


GOOD = [_file("model.safetensors"), _file("config.json"), _file("signature.json")]


def test_manifest():
    check_announced(GOOD[::-1], SIGNATURE, POLICY)


@pytest.mark.parametrize(
    ("files", "named"),
    [
        ([*GOOD, _file("config.json")], "listed twice"),
        ([*GOOD, _file("weights.pt")], r"weights\.pt: not accepted; a checkpoint is exactly model\.safe"),
        ([*GOOD, _file("weights.SAFETENSORS")], "not accepted"),
        ([*GOOD, _file("README.md")], r"README\.md: not accepted"),
        (GOOD[:2], r"signature\.json: missing"),
        (GOOD[:1], r"config\.json and signature\.json: missing"),
        (GOOD[1:], r"model\.safetensors: missing"),
        ([*GOOD[:2], _file("signature.json", bytes=2**30)], "over"),
    ],
)
def test_manifests_that_are_refused(files, named):
    with pytest.raises(CheckpointInvalid, match=named):
        check_announced(files, SIGNATURE, POLICY)


def test_architectures_that_are_refused():
    unknown = SIGNATURE.model_copy(update={"architecture": "os.system"})
    with pytest.raises(CheckpointInvalid, match=r"'os\.system' cannot .* accepted are hstu, next") as error:
        check_announced(GOOD, unknown, POLICY)
    assert error.value.context["architectures"] == ["hstu", "next"]


def test_manifest_digest_sees_content_only():
    digest = manifest_digest(GOOD)
    assert manifest_digest(GOOD[::-1]) == digest
    assert manifest_digest([_file("model.safetensors", parts=9), *GOOD[1:]]) == digest
    assert manifest_digest([_file("model.safetensors", sha256="1" * 64), *GOOD[1:]]) != digest


def test_header_is_read(tmp_path):
    save_file(
        {"a": np.zeros((2, 3), np.float16), "scalar": np.zeros((), np.int64)}, tmp_path / "m.safetensors"
    )
    found = read_header("m", tmp_path / "m.safetensors")
    assert found == {
        "a": TensorSignature(dtype="F16", shape=[2, 3]),
        "scalar": TensorSignature(dtype="I64", shape=[]),
    }


def _raw(header: object, data: bytes) -> bytes:
    encoded = json.dumps(header).encode()
    return struct.pack("<Q", len(encoded)) + encoded + data


def test_dtypes_numpy_does_not_have_are_read_too(tmp_path):
    header = {"a": {"dtype": "BF16", "shape": [2], "data_offsets": [0, 4]}}
    (tmp_path / "m.safetensors").write_bytes(_raw(header, b"\0" * 4))
    found = read_header("m", tmp_path / "m.safetensors")
    assert found == {"a": TensorSignature(dtype="BF16", shape=[2])}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x80\x04\x95pickle" * 10,
        struct.pack("<Q", 2**62) + b"{}",
        _raw({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}, b"\0" * 7),
        _raw({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}, b"\0" * 9),
        _raw({"a": {"dtype": "F32", "shape": [3], "data_offsets": [0, 8]}}, b"\0" * 8),
        _raw({"a": {"dtype": "PICKLE", "shape": [2], "data_offsets": [0, 8]}}, b"\0" * 8),
        _raw({"a": {"dtype": "F32", "shape": [2**40, 2**40], "data_offsets": [0, 8]}}, b"\0" * 8),
        _raw([], b""),
    ],
)
def test_headers_that_lie_are_refused(tmp_path, content):
    path = tmp_path / "m.safetensors"
    path.write_bytes(content)
    with pytest.raises(CheckpointInvalid, match="well-formed"):
        read_header("m.safetensors", path)


def _check(tmp_path, **contents: bytes) -> None:
    """Check a good checkpoint in which some files were exchanged."""
    save_file({"a": np.zeros(1, np.float32)}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_bytes(contents.get("config", b'{"architecture": "hstu"}'))
    signature = contents.get("signature", SIGNATURE.model_dump_json().encode())
    (tmp_path / "signature.json").write_bytes(signature)
    check_contents({name: tmp_path / name for name in POLICY.files}, SIGNATURE, POLICY)


def test_contents(tmp_path):
    _check(tmp_path)
    _check(tmp_path, config='{"architecture": "hstu", "größer": 1}'.encode())


@pytest.mark.parametrize("name", ["config", "signature"])
@pytest.mark.parametrize(
    ("content", "error"),
    [
        (b"[]", CheckpointInvalid),
        (b"{", CheckpointInvalid),
        (b"\xff", CheckpointInvalid),
        (b"[" * 200_000, CheckpointInvalid),
        (b'{"architecture": "other", "tensors": {}}', SignatureMismatch),
        (b'{"architecture": ["hstu"]}', CheckpointInvalid),
        (b"{}", CheckpointInvalid),
    ],
)
def test_contents_that_are_refused(tmp_path, name, content, error):
    with pytest.raises(error):
        _check(tmp_path, **{name: content})


def test_many_differences_are_cut_short(tmp_path):
    _check(tmp_path)
    save_file({f"t{n}": np.zeros(1, np.float32) for n in range(20)}, tmp_path / "model.safetensors")
    with pytest.raises(SignatureMismatch, match="and 16 more") as error:
        check_contents({name: tmp_path / name for name in POLICY.files}, SIGNATURE, POLICY)
    assert len(error.value.context["differences"]) == 21
