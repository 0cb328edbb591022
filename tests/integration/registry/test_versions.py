from __future__ import annotations

from datetime import UTC, datetime

import pytest

from bedplate.errors import (
    CheckpointInvalid,
    Conflict,
    InvalidRequest,
    NotFound,
    VersionNotReady,
)
from bedplate.references import VersionReference
from bedplate.wire.registry import ServingMove, Version
from bedplate_registry import aliases, experts, foundations, versions


def _active(registry, foundation=None) -> list[str]:
    with registry.database.read() as session:
        return [version.reference for version in versions.active(session, foundation)]


def _serve(registry, version, expected=None) -> None:
    with registry.database.write() as session:
        move = ServingMove(version=version, expected_version=expected)
        experts.set_serving(session, "ranker", move, "tester", registry.later())


def test_versions_created_at_once_get_distinct_numbers(registry, checkpoint, concurrently):
    drafts = concurrently([lambda: registry.draft(checkpoint(1))] * 12)
    assert all(isinstance(draft, Version) for draft in drafts), drafts
    assert sorted(draft.version for draft in drafts) == list(range(1, 13))
    with registry.database.read() as session:
        assert [version.version for version in versions.list(session, "core")] == list(range(1, 13))
        assert foundations.get(session, "core").latest_version == 12
        assert foundations.list(session)[0].latest_version == 12


def test_a_number_taken_within_a_transaction_is_a_conflict(registry, checkpoint, monkeypatch):
    monkeypatch.setattr(versions, "try_insert", lambda *_: False)
    with pytest.raises(Conflict, match="again"), registry.database.write() as session:
        versions.create_draft(session, "core", checkpoint(1).document(), registry.now, registry.policy)
    with pytest.raises(Conflict, match="again"):
        registry.draft(checkpoint(1))


def test_lineage(registry, checkpoint):
    registry.ready(1)
    start, end = datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 2, 1, 0, 0, 0, 123456, tzinfo=UTC)
    second = registry.ready(2, parent=1, training_window_start=start, training_window_end=end)
    assert (second.parent, second.training_window_start, second.training_window_end) == (1, start, end)
    with pytest.raises(NotFound, match="core@9"):
        registry.draft(checkpoint(3), parent=9)
    draft = registry.draft(checkpoint(3))
    with pytest.raises(VersionNotReady, match="draft"):
        registry.draft(checkpoint(4), parent=draft.version)
    with pytest.raises(InvalidRequest, match="smaller"), registry.database.write() as session:
        versions.amend_draft(session, "core", 3, checkpoint(3).document(parent=3), registry.policy)
    with pytest.raises(InvalidRequest, match="window"):
        registry.draft(checkpoint(3), training_window_start=end, training_window_end=start)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_metrics_are_finite(registry, checkpoint, value):
    with pytest.raises(InvalidRequest, match="ne"):
        registry.draft(checkpoint(1), metrics={"ne": value})


def test_weights_and_config_are_needed(registry, checkpoint):
    files = checkpoint(1)
    del files.files["config.json"]
    with pytest.raises(CheckpointInvalid, match=r"config\.json: missing"):
        registry.draft(files)


@pytest.mark.parametrize("number", [0, 2, 2**31, 2**80, -1])
def test_versions_that_are_not_there(registry, number):
    registry.ready(1)
    with registry.database.read() as session, pytest.raises(NotFound, match="core@"):
        versions.get(session, "core", number)


def test_resolve(registry):
    registry.ready(1)
    registry.move("production", 1)
    with registry.database.read() as session:
        for text in ("core@1", "core@production"):
            found = versions.resolve(session, VersionReference.parse(text))
            assert (found.reference, found.aliases) == ("core@1", ["production"])
        for text in ("core@2", "core@candidate", "other@1"):
            with pytest.raises(NotFound):
                versions.resolve(session, VersionReference.parse(text))


def test_active_versions(registry):
    for seed in range(1, 5):
        registry.ready(seed)
    registry.expert()
    assert _active(registry) == []
    registry.expert_ready(pinned="core@3")
    assert _active(registry) == []  # pinned, but nothing serves
    _serve(registry, 1)
    assert _active(registry) == ["core@3"]
    registry.move("production", 1)
    registry.move("candidate", 1)
    assert _active(registry) == ["core@1", "core@3"]
    registry.move("candidate", 2, expected=1)
    registry.expert_ready(pinned="core@1", seed=1)
    _serve(registry, 2, expected=1)
    assert _active(registry) == ["core@1", "core@2"]
    assert _active(registry, "core") == ["core@1", "core@2"]
    with pytest.raises(NotFound):
        _active(registry, "other")


def test_retire(registry, checkpoint):
    for seed in range(1, 4):
        registry.ready(seed)
    registry.expert()
    registry.expert_ready(pinned="core@1")
    _serve(registry, 1)
    registry.move("production", 2)
    registry.draft(checkpoint(9))

    def retire(number):
        with registry.database.write() as session:
            return versions.retire(session, "core", number, registry.later())

    with pytest.raises(Conflict, match="ranker"):
        retire(1)
    with pytest.raises(Conflict, match="production"):
        retire(2)
    with pytest.raises(VersionNotReady):
        retire(4)
    assert retire(3).state == "retired"
    assert retire(3).state == "retired"
    with pytest.raises(VersionNotReady, match="retired"):
        registry.move("production", 3, expected=2)
    with pytest.raises(VersionNotReady, match="retired"):
        registry.expert_ready(pinned="core@3", seed=5)


def test_no_alias_ends_on_a_version_retired_at_the_same_moment(registry, concurrently):
    for round_ in range(1, 6):
        registry.ready(round_)
        alias = f"alias-{round_}"

        def retire(number=round_):
            with registry.database.write() as session:
                versions.retire(session, "core", number, registry.now)

        def move(number=round_, alias=alias):
            registry.move(alias, number)

        outcomes = concurrently([retire, move])
        assert [isinstance(outcome, Exception) for outcome in outcomes].count(True) == 1, outcomes
        with registry.database.read() as session:
            pointing = [one for one in aliases.list(session, "core") if one.version == round_]
        assert (registry.get(round_).state == "retired") == (pointing == [])
