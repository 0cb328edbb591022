from __future__ import annotations

import json
import struct

import numpy as np
import pytest
from safetensors.numpy import save_file

from bedplate.errors import CheckpointInvalid, SignatureMismatch
from bedplate.wire.registry import FileManifest, Signature, TensorSignature
from bedplate_registry.checkpoint_files import check_contents, check_manifest, manifest_digest, read_header


def _file(name: str, **members) -> FileManifest:
    return FileManifest(**({"name": name, "sha256": "0" * 64, "bytes": 1} | members))


GOOD = [_file("model.safetensors"), _file("config.json")]


def test_manifest():
    check_manifest([*GOOD, _file("signature.json"), _file("README.md"), _file("optimizer.safetensors")])


@pytest.mark.parametrize(
    ("files", "named"),
    [
        ([*GOOD, _file("config.json")], "listed twice"),
        ([*GOOD, _file("weights.pt")], r"weights\.pt: this type"),
        ([*GOOD, _file("weights.SAFETENSORS")], "this type"),
        (GOOD[:1], r"config\.json: missing"),
        (GOOD[1:], r"model\.safetensors: missing"),
        ([*GOOD, _file("big.json", bytes=2**30)], "over"),
    ],
)
def test_manifests_that_are_refused(files, named):
    with pytest.raises(CheckpointInvalid, match=named):
        check_manifest(files)


def test_manifest_digest_sees_content_only():
    digest = manifest_digest(GOOD)
    assert manifest_digest(GOOD[::-1]) == digest
    assert manifest_digest([_file("model.safetensors", parts=9), GOOD[1]]) == digest
    assert manifest_digest([_file("model.safetensors", sha256="1" * 64), GOOD[1]]) != digest


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


SIGNATURE = Signature(architecture="hstu", tensors={"a": TensorSignature(dtype="F32", shape=[1])})


def _check(tmp_path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    check_contents({name: tmp_path / name}, SIGNATURE)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("config.json", b'{"architecture": "hstu"}'),
        ("config.json", b"{}"),
        ("extra.json", b"[1]"),
        ("README.md", "größer".encode()),
    ],
)
def test_contents(tmp_path, name, content):
    _check(tmp_path, name, content)


@pytest.mark.parametrize(
    ("name", "content", "error"),
    [
        ("config.json", b"[]", CheckpointInvalid),
        ("config.json", b"{", CheckpointInvalid),
        ("config.json", b"\xff", CheckpointInvalid),
        ("config.json", b"[" * 200_000, CheckpointInvalid),
        ("config.json", b'{"architecture": "other"}', SignatureMismatch),
        ("README.txt", b"\xff\xfe", CheckpointInvalid),
    ],
)
def test_contents_that_are_refused(tmp_path, name, content, error):
    with pytest.raises(error):
        _check(tmp_path, name, content)


def test_many_differences_are_cut_short(tmp_path):
    save_file({f"t{n}": np.zeros(1, np.float32) for n in range(20)}, tmp_path / "model.safetensors")
    with pytest.raises(SignatureMismatch, match="and 16 more") as error:
        check_contents({"model.safetensors": tmp_path / "model.safetensors"}, SIGNATURE)
    assert len(error.value.context["differences"]) == 21
