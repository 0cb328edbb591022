from __future__ import annotations

from functools import partial

import pytest

from bedplate.errors import (
    AliasMoved,
    Conflict,
    InvalidRequest,
    NotFound,
    VersionImmutable,
    VersionNotReady,
)
from bedplate.wire.registry import ExpertVersion, ExpertVersionCreate, ServingMove
from bedplate_registry import expert_versions, experts, versions

from .conftest import EXPERT, make_checkpoint


@pytest.fixture
def pinned(registry):
    registry.ready(1)
    registry.expert()
    return registry


@pytest.fixture
def checkpoint(checkpoint):
    return partial(checkpoint, architecture="fm-expert")


def _document(checkpoint, **members) -> ExpertVersionCreate:
    return ExpertVersionCreate(signature=checkpoint.signature, files=checkpoint.manifests, **members)


def _serve(registry, version, expected=None, expert="ranker"):
    with registry.database.write() as session:
        move = ServingMove(version=version, expected_version=expected)
        return experts.set_serving(session, expert, move, "tester", registry.later())


def _serving(registry, expert=None) -> ExpertVersion:
    with registry.database.read() as session:
        return experts.serving(session, "feed", expert)


def test_the_same_upload_as_for_foundations(pinned, checkpoint):
    ready = pinned.expert_ready()
    assert (ready.expert, ready.version, ready.state) == ("ranker", 1, "ready")
    assert (ready.surface, ready.pinned_version, ready.pinned_space) == ("feed", "core@1", "tae")
    with pinned.database.read() as session:
        key, manifest = expert_versions.file_object(session, "ranker", 1, "model.safetensors")
        assert pinned.blobs.size(key) == manifest.bytes
        assert expert_versions.list(session, "ranker") == [ready]
        assert expert_versions.upload_status(session, "ranker", 1).received["config.json"] == [0]
        assert experts.get(session, "ranker").latest_version == 1
    with pytest.raises(VersionImmutable):
        expert_versions.receive_part(pinned.database, pinned.blobs, "ranker", 1, "config.json", 0, b"{}")
    with pytest.raises(VersionImmutable), pinned.database.write() as session:
        expert_versions.amend_draft(session, "ranker", 1, _document(checkpoint(1)), EXPERT)


def test_expert_versions_created_at_once_get_distinct_numbers(pinned, checkpoint, concurrently):
    document = _document(checkpoint(1))
    create = [lambda: expert_versions.create(pinned.database, "ranker", document, pinned.now, EXPERT)] * 8
    created = concurrently(create)
    assert sorted(one.version for one in created) == list(range(1, 9))


def test_pins(pinned, checkpoint):
    pinned.move("production", 1)
    by_alias = expert_versions.create(
        pinned.database,
        "ranker",
        _document(checkpoint(1), pinned_version="core@production", pinned_space="item", training_set="ts-1"),
        pinned.now,
        EXPERT,
    )
    assert (by_alias.pinned_version, by_alias.training_set) == ("core@1", "ts-1")
    free = expert_versions.create(pinned.database, "ranker", _document(checkpoint(1)), pinned.now, EXPERT)
    assert (free.pinned_version, free.pinned_space) == (None, None)
    with pinned.database.read() as session:
        assert expert_versions.pins(session, "feed") == {"ranker@1": "core@1", "ranker@2": None}
    with pinned.database.write() as session:
        document = _document(checkpoint(1), pinned_version="core@1", pinned_space="tae")
        assert expert_versions.amend_draft(session, "ranker", 2, document, EXPERT).pinned_space == "tae"


@pytest.mark.parametrize(
    ("members", "error", "named"),
    [
        ({"pinned_version": "core@2", "pinned_space": "tae"}, VersionNotReady, "draft"),
        ({"pinned_version": "core@1", "pinned_space": "none"}, NotFound, "it has item, tae"),
        ({"pinned_version": "core@9", "pinned_space": "tae"}, NotFound, "core@9"),
        ({"pinned_version": "core@1"}, InvalidRequest, "both or neither"),
        ({"pinned_space": "tae"}, InvalidRequest, "both or neither"),
        ({"training_set": "\x00"}, InvalidRequest, "NUL"),
    ],
)
def test_pins_that_are_refused(pinned, checkpoint, members, error, named):
    pinned.draft(make_checkpoint(2))
    with pytest.raises(error, match=named):
        expert_versions.create(
            pinned.database, "ranker", _document(checkpoint(1), **members), pinned.now, EXPERT
        )
    with pinned.database.read() as session:
        assert expert_versions.list(session, "ranker") == []


def test_serving_is_compare_and_swap(pinned, concurrently):
    for seed in range(3):
        pinned.expert_ready(seed=seed)
    assert _serve(pinned, 1).serving_version == 1
    with pytest.raises(AliasMoved, match="Version 1") as error:
        _serve(pinned, 2)
    assert error.value.context == {"current_version": 1}
    outcomes = concurrently(
        [lambda: _serve(pinned, 2, expected=1), lambda: _serve(pinned, 3, expected=1)] * 3
    )
    won = [outcome for outcome in outcomes if not isinstance(outcome, Exception)]
    assert len(won) == 1
    assert _serving(pinned).version == won[0].serving_version
    with pinned.database.read() as session:
        changes = experts.serving_history(session, "ranker")
        assert [change.from_version for change in changes] == [1, None]
        assert experts.list(session, "feed") == won
        assert experts.list(session) == won


def test_what_may_not_serve(pinned, checkpoint):
    expert_versions.create(pinned.database, "ranker", _document(checkpoint(1)), pinned.now, EXPERT)
    with pytest.raises(VersionNotReady, match="draft"):
        _serve(pinned, 1)
    pinned.expert_ready()
    with pinned.database.write() as session:
        versions.retire(session, "core", 1, pinned.now)
    with pytest.raises(VersionNotReady, match="core@1 is retired"):
        _serve(pinned, 2)
    with pytest.raises(NotFound, match="ranker@9"):
        _serve(pinned, 9)


def test_which_expert_answers(pinned):
    with pytest.raises(NotFound, match="POST /v1/experts"):
        _serving(pinned)
    pinned.expert_ready()
    with pytest.raises(NotFound, match="does not serve"):
        _serving(pinned, "ranker")
    _serve(pinned, 1)
    assert _serving(pinned).version == _serving(pinned, "ranker").version == 1
    pinned.expert("second")
    pinned.expert_ready("second", pinned=None, seed=1)
    _serve(pinned, 1, expert="second")
    with pytest.raises(Conflict, match="ranker, second"):
        _serving(pinned)
    assert _serving(pinned, "second").pinned_version is None
    with pinned.database.read() as session, pytest.raises(NotFound, match="nowhere"):
        experts.serving(session, "nowhere")


def test_retiring_expert_versions(pinned, checkpoint):
    pinned.expert_ready()
    pinned.expert_ready(seed=1)
    expert_versions.create(pinned.database, "ranker", _document(checkpoint(1)), pinned.now, EXPERT)
    _serve(pinned, 1)

    def retire(number):
        with pinned.database.write() as session:
            return expert_versions.retire(session, "ranker", number, pinned.now)

    with pytest.raises(Conflict, match="serves"):
        retire(1)
    with pytest.raises(VersionNotReady, match="draft"):
        retire(3)
    assert retire(2).state == retire(2).state == "retired"
    with pytest.raises(VersionNotReady, match="retired"):
        _serve(pinned, 2, expected=1)
