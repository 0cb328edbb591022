from __future__ import annotations

import dataclasses
import hashlib
import json

import pytest
from safetensors.numpy import load

from bedplate.errors import (
    BatchTooLarge,
    CheckpointInvalid,
    Conflict,
    DigestMismatch,
    InvalidRequest,
    NotFound,
    SignatureMismatch,
    VersionImmutable,
    VersionNotReady,
)
from bedplate.wire.registry import TensorSignature
from bedplate_registry import uploads, versions

WEIGHTS, SIGNATURE = "model.safetensors", "signature.json"


def _status(registry, version: int = 1) -> dict[str, list[int]]:
    with registry.database.read() as session:
        return versions.upload_status(session, "core", version).received


def _upload_objects(registry) -> list[str]:
    return list(registry.blobs.list("uploads/"))


def test_the_whole_way(registry, checkpoint):
    files = checkpoint(7, parts=3)
    draft = registry.draft(files, metrics={"ne": 0.8}, description="first")
    assert (draft.reference, draft.state, draft.digest) == ("core@1", "draft", None)
    registry.upload(1, files)
    ready = registry.finalise(1)
    assert (ready.state, ready.finalised_at, ready.metrics) == ("ready", registry.now, {"ne": 0.8})
    assert ready.digest is not None
    assert registry.get(1) == ready
    with registry.database.read() as session:
        key, manifest = versions.file_object(session, "core", 1, WEIGHTS)
    assert key == f"checkpoints/{manifest.sha256}"
    assert load(registry.blobs.get(key))["layer.weight"][0, 0] == 7
    assert _upload_objects(registry) == []
    assert _status(registry) == {WEIGHTS: [0, 1, 2], "config.json": [0, 1, 2], SIGNATURE: [0, 1, 2]}


def test_digest_does_not_depend_on_how_the_files_were_cut_or_listed(registry, checkpoint):
    files = checkpoint(1, parts=2)
    backwards = checkpoint(1)
    backwards.files = dict(reversed(backwards.files.items()))
    for number, one in enumerate((files, backwards), start=1):
        registry.draft(one)
        registry.upload(number, one)
    assert registry.finalise(1).digest == registry.finalise(2).digest != registry.ready(3).digest
    assert (
        len(list(registry.blobs.list("checkpoints/"))) == 5
    )  # weights and config differ, equal files are stored once


def test_an_interrupted_upload_goes_on_where_it_stopped(registry, checkpoint):
    files = checkpoint(1, parts=4)
    registry.draft(files)
    registry.send(1, WEIGHTS, 2, files.part(WEIGHTS, 2))

    def breaks_off():
        yield files.part(WEIGHTS, 0)[:5]
        raise ConnectionResetError("the client went away")

    with pytest.raises(ConnectionResetError):
        registry.send(1, WEIGHTS, 0, breaks_off())
    assert _status(registry) == {WEIGHTS: [2], "config.json": [], SIGNATURE: []}
    assert len(_upload_objects(registry)) == 1
    with pytest.raises(CheckpointInvalid, match=r"model\.safetensors part 0") as error:
        registry.finalise(1)
    assert len(error.value.context["missing"]) == 11
    for name, received in _status(registry).items():
        for part in {0, 1, 2, 3} - set(received):
            data = files.part(name, part)
            registry.send(1, name, part, iter([data[:3], data[3:]]))
    assert registry.finalise(1).state == "ready"


def test_a_part_sent_again_replaces_the_first(registry, checkpoint):
    files = checkpoint(1, parts=2)
    registry.draft(files)
    registry.send(1, WEIGHTS, 0, b"wrong")
    before = _upload_objects(registry)
    registry.upload(1, files)
    assert not set(before) & set(_upload_objects(registry))
    assert registry.finalise(1).state == "ready"


def test_a_process_killed_between_object_and_row_leaves_the_draft_as_it_was(
    registry, checkpoint, monkeypatch
):
    files = checkpoint(1)
    registry.draft(files)

    def dies(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(uploads, "_record_part", dies)
        with pytest.raises(KeyboardInterrupt):
            registry.send(1, WEIGHTS, 0, files.part(WEIGHTS, 0))
    assert _status(registry)[WEIGHTS] == []
    registry.upload(1, files)
    assert registry.finalise(1).state == "ready"
    assert _upload_objects(registry) == []


def test_a_process_killed_after_finalise_leaves_parts_that_are_swept(registry, checkpoint, monkeypatch):
    files = checkpoint(1, parts=2)
    registry.draft(files)
    registry.upload(1, files)

    def dies(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(uploads, "_delete_parts", dies)
        with pytest.raises(KeyboardInterrupt):
            registry.finalise(1)
    assert registry.get(1).state == "ready"
    draft = registry.draft(checkpoint(2))
    registry.send(draft.version, WEIGHTS, 0, b"half")
    assert uploads.sweep(registry.database, registry.blobs) == 6
    assert len(_upload_objects(registry)) == 1
    assert uploads.sweep(registry.database, registry.blobs) == 0


def test_digest_mismatch_leaves_a_draft_that_can_be_mended(registry, checkpoint):
    files = checkpoint(1)
    registry.draft(files)
    registry.upload(1, files)
    spoiled = bytearray(files.files[WEIGHTS])
    spoiled[-1] ^= 1
    registry.send(1, WEIGHTS, 0, bytes(spoiled))
    with pytest.raises(DigestMismatch, match=WEIGHTS) as error:
        registry.finalise(1)
    assert hashlib.sha256(spoiled).hexdigest() in error.value.detail
    assert registry.get(1).state == "draft"
    assert registry.get(1).digest is None
    assert list(registry.blobs.list("checkpoints/")) == []
    registry.send(1, WEIGHTS, 0, files.files[WEIGHTS])
    assert registry.finalise(1).state == "ready"


def test_a_file_that_is_too_short_is_a_digest_mismatch(registry, checkpoint):
    files = checkpoint(1)
    registry.draft(files)
    registry.upload(1, files)
    registry.send(1, "config.json", 0, b"")
    with pytest.raises(DigestMismatch, match=r"config\.json"):
        registry.finalise(1)


@pytest.mark.parametrize(
    ("tensors", "named"),
    [
        ({"layer.weight": TensorSignature(dtype="F32", shape=[4, 3])}, r"layer\.weight is F32\[3, 4\]"),
        ({"layer.bias": TensorSignature(dtype="F32", shape=[3])}, r"layer\.bias is F16\[3\]"),
        ({"head": TensorSignature(dtype="F32", shape=[])}, "head is in the signature only"),
    ],
)
def test_signature_mismatch_leaves_a_draft_that_can_be_mended(registry, checkpoint, tensors, named):
    files = checkpoint(1)
    right = files.signature
    files.signature = right.model_copy(update={"tensors": {**right.tensors, **tensors}})
    registry.draft(files)
    registry.upload(1, files)
    with pytest.raises(SignatureMismatch, match=named):
        registry.finalise(1)
    assert registry.get(1).state == "draft"
    assert list(registry.blobs.list("checkpoints/")) == []
    files.signature = right
    with registry.database.write() as session:
        amended = versions.amend_draft(
            session, "core", 1, files.document(description="mended"), registry.policy
        )
    assert (amended.signature, amended.description) == (right, "mended")
    assert registry.finalise(1).state == "ready"  # no part had to be sent again


def test_amending_a_file_drops_its_parts_and_keeps_the_others(registry, checkpoint):
    files = checkpoint(1, parts=2)
    registry.draft(files)
    registry.upload(1, files)
    other = checkpoint(2, parts=2)
    other.files["config.json"] = files.files["config.json"]
    with registry.database.write() as session:
        versions.amend_draft(session, "core", 1, other.document(), registry.policy)
    assert _status(registry) == {WEIGHTS: [], "config.json": [0, 1], SIGNATURE: [0, 1]}
    for part in range(2):
        registry.send(1, WEIGHTS, part, other.part(WEIGHTS, part))
    assert registry.finalise(1).state == "ready"
    assert _upload_objects(registry) == []


def test_config_of_another_architecture_is_a_signature_mismatch(registry, checkpoint):
    files = checkpoint(1)
    files.files["config.json"] = b'{"architecture": "something-else"}'
    registry.draft(files)
    registry.upload(1, files)
    with pytest.raises(SignatureMismatch, match="something-else"):
        registry.finalise(1)
    assert registry.get(1).state == "draft"


@pytest.mark.parametrize("content", [b"", b"\x80\x04pickle", b"\xff" * 64])
def test_what_only_calls_itself_safetensors_is_refused(registry, checkpoint, content):
    files = checkpoint(1)
    files.files[WEIGHTS] = content
    registry.draft(files)
    registry.upload(1, files)
    with pytest.raises(CheckpointInvalid, match="well-formed"):
        registry.finalise(1)
    assert registry.get(1).state == "draft"


def test_nothing_changes_after_finalise(registry, checkpoint):
    files = checkpoint(1)
    before = registry.ready(1)
    with pytest.raises(VersionImmutable):
        registry.send(1, WEIGHTS, 0, files.files[WEIGHTS])
    with pytest.raises(VersionImmutable):
        registry.finalise(1)
    with pytest.raises(VersionImmutable), registry.database.write() as session:
        versions.amend_draft(session, "core", 1, files.document(description="other"), registry.policy)
    assert registry.get(1) == before
    assert _upload_objects(registry) == []


def test_a_part_that_arrives_while_the_version_is_finalised_is_refused(registry, checkpoint):
    files = checkpoint(1)
    registry.draft(files)
    registry.upload(1, files)

    def finalised_meanwhile():
        yield files.files[WEIGHTS]
        registry.finalise(1)

    with pytest.raises(VersionImmutable):
        registry.send(1, WEIGHTS, 0, finalised_meanwhile())
    assert _upload_objects(registry) == []
    assert registry.get(1).state == "ready"


def test_a_draft_that_changes_while_it_is_verified_is_not_finalised(registry, checkpoint, monkeypatch):
    files = checkpoint(1)
    registry.draft(files)
    registry.upload(1, files)
    check = uploads.check_contents

    def meanwhile(paths, signature, policy):
        check(paths, signature, policy)
        registry.send(1, WEIGHTS, 0, b"other bytes")

    with monkeypatch.context() as patched:
        patched.setattr(uploads, "check_contents", meanwhile)
        with pytest.raises(Conflict, match="finalise it again"):
            registry.finalise(1)
    assert registry.get(1).state == "draft"
    with pytest.raises(DigestMismatch):
        registry.finalise(1)


def test_parts_that_vanish_under_a_late_finalise_are_explained(registry, checkpoint, monkeypatch):
    files = checkpoint(1, parts=2)
    registry.draft(files)
    registry.upload(1, files)
    complete = uploads._check_complete

    def finalised_meanwhile(draft, blobs, label):
        complete(draft, blobs, label)
        monkeypatch.undo()
        registry.finalise(1)

    monkeypatch.setattr(uploads, "_check_complete", finalised_meanwhile)
    with pytest.raises(VersionImmutable):
        registry.finalise(1)
    assert registry.get(1).state == "ready"


def test_finalise_at_once_happens_once(registry, checkpoint, concurrently):
    files = checkpoint(1, parts=2)
    registry.draft(files)
    registry.upload(1, files)
    outcomes = concurrently([lambda: registry.finalise(1)] * 4)
    won = [outcome for outcome in outcomes if not isinstance(outcome, Exception)]
    assert len(won) == 1
    lost = [outcome for outcome in outcomes if isinstance(outcome, Exception)]
    assert all(isinstance(error, VersionImmutable) for error in lost), lost
    assert registry.get(1) == won[0]
    with registry.database.read() as session:
        for name in files.files:
            key, manifest = versions.file_object(session, "core", 1, name)
            assert hashlib.sha256(registry.blobs.get(key)).hexdigest() == manifest.sha256


def test_one_part_sent_by_many_at_once_is_one_of_them(registry, checkpoint, concurrently):
    files = checkpoint(1)
    registry.draft(files)
    registry.upload(1, files)
    sends = [lambda: registry.send(1, WEIGHTS, 0, files.files[WEIGHTS])] * 6
    assert concurrently(sends) == [None] * 6
    assert len(_upload_objects(registry)) == 3
    assert registry.finalise(1).state == "ready"


@pytest.mark.parametrize(
    ("file", "part", "error"),
    [("optimizer.bin", 0, NotFound), (WEIGHTS, 1, InvalidRequest), (WEIGHTS, -1, InvalidRequest)],
)
def test_parts_nobody_announced(registry, checkpoint, file, part, error):
    registry.draft(checkpoint(1))
    with pytest.raises(error):
        registry.send(1, file, part, b"x")
    assert _upload_objects(registry) == []


def test_parts_that_are_too_long(registry, checkpoint, monkeypatch):
    files = checkpoint(1)
    registry.draft(files)
    with pytest.raises(DigestMismatch, match="longer"):
        registry.send(1, WEIGHTS, 0, files.files[WEIGHTS] + b"x")
    monkeypatch.setattr(uploads, "PART_BYTES_MAX", 10)
    with pytest.raises(BatchTooLarge, match="10 bytes"):
        registry.send(1, WEIGHTS, 0, files.files[WEIGHTS])
    assert _upload_objects(registry) == []


def test_files_of_a_draft_cannot_be_read(registry, checkpoint):
    registry.draft(checkpoint(1))
    with registry.database.read() as session, pytest.raises(VersionNotReady):
        versions.file_object(session, "core", 1, WEIGHTS)
    registry.ready(2)
    with registry.database.read() as session, pytest.raises(NotFound, match=r"config\.json"):
        versions.file_object(session, "core", 2, "other.json")


@pytest.mark.parametrize(
    "name", ["model.pt", "model.pkl", "model.pt2", "model.bin", "code.py", "README.md", "a.npy", "x.json"]
)
def test_other_files_are_refused_at_once(registry, checkpoint, name):
    files = checkpoint(1)
    files.files[name] = b"x"
    with pytest.raises(CheckpointInvalid, match="not accepted"):
        registry.draft(files)
    with registry.database.read() as session:
        assert versions.list(session, "core") == []


def test_a_missing_signature_file_is_refused_at_once(registry, checkpoint):
    files = checkpoint(1)
    del files.files[SIGNATURE]
    with pytest.raises(CheckpointInvalid, match=r"signature\.json: missing"):
        registry.draft(files)
    with registry.database.read() as session:
        assert versions.list(session, "core") == []


def test_architectures_nobody_can_load_are_refused_at_once(registry, checkpoint):
    registry.draft(checkpoint(1))
    for name in ("fm-expert", "os.system", ""):
        other = checkpoint(2, architecture=name)
        with pytest.raises(CheckpointInvalid, match="accepted is hstu-foundation"):
            registry.draft(other)
        with pytest.raises(CheckpointInvalid), registry.database.write() as session:
            versions.amend_draft(session, "core", 1, other.document(), registry.policy)
    with registry.database.read() as session:
        assert [one.signature.architecture for one in versions.list(session, "core")] == ["hstu-foundation"]


def test_a_draft_older_than_the_policy_is_refused_when_it_is_finalised(registry, checkpoint):
    files = checkpoint(1)
    registry.draft(files)
    registry.upload(1, files)
    registry.policy = dataclasses.replace(registry.policy, architectures=("next",))
    with pytest.raises(CheckpointInvalid, match="accepted is next"):
        registry.finalise(1)
    assert registry.get(1).state == "draft"
    assert list(registry.blobs.list("checkpoints/")) == []


@pytest.mark.parametrize(
    ("members", "named"),
    [
        ({"architecture": "other"}, "says architecture 'other'"),
        ({"spaces": {"item": {"dim": 8}}}, r"space item is float16\[8\]"),
        ({"tensors": {}}, r"layer\.bias is in the announced one only"),
    ],
)
def test_a_signature_file_that_says_something_else_is_a_mismatch(registry, checkpoint, members, named):
    files = checkpoint(1)
    files.files[SIGNATURE] = json.dumps({**json.loads(files.files[SIGNATURE]), **members}).encode()
    registry.draft(files)
    registry.upload(1, files)
    with pytest.raises(SignatureMismatch, match=named):
        registry.finalise(1)
    assert registry.get(1).state == "draft"
    assert list(registry.blobs.list("checkpoints/")) == []
