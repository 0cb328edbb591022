from __future__ import annotations

import pytest

from bedplate.errors import AliasMoved, InvalidRequest, NotFound, VersionNotReady
from bedplate.wire.registry import AliasMove
from bedplate_registry import aliases


@pytest.fixture
def promoted(registry):
    for seed in range(1, 4):
        registry.ready(seed)
    registry.move("production", 1)
    return registry


def _where(registry, alias="production") -> int:
    with registry.database.read() as session:
        return aliases.get(session, "core", alias).version


def test_move_and_history(promoted):
    promoted.move("production", 2, expected=1)
    promoted.move("production", 1, expected=2)
    with promoted.database.read() as session:
        changes = aliases.history(session, "core", "production")
        assert [(change.from_version, change.to_version) for change in changes] == [(2, 1), (1, 2), (None, 1)]
        assert changes[0].moved_by == "tester"
        assert changes[0].moved_at == promoted.now == aliases.get(session, "core", "production").moved_at
        assert [alias.alias for alias in aliases.list(session, "core")] == ["production"]


@pytest.mark.parametrize("expected", [None, 2, 7])
def test_who_believes_something_else_moves_nothing(promoted, expected):
    with pytest.raises(AliasMoved, match="points at version 1") as error:
        promoted.move("production", 3, expected=expected)
    assert error.value.context == {"current_version": 1}
    with promoted.database.read() as session:
        assert len(aliases.history(session, "core", "production")) == 1
    assert _where(promoted) == 1


def test_an_alias_that_is_not_there_cannot_be_expected_somewhere(promoted):
    with pytest.raises(AliasMoved, match="does not exist"):
        promoted.move("candidate", 2, expected=1)
    with promoted.database.read() as session, pytest.raises(NotFound):
        aliases.get(session, "core", "candidate")


@pytest.mark.parametrize("alias", ["production", "candidate"])
def test_of_moves_at_once_exactly_one_wins(promoted, concurrently, alias):
    expected = 1 if alias == "production" else None

    def mover(version):
        return lambda: promoted.move(alias, version, expected=expected)

    outcomes = concurrently([mover(2 + number % 2) for number in range(8)])
    assert outcomes.count(None) == 1, outcomes
    assert all(isinstance(outcome, AliasMoved) for outcome in outcomes if outcome is not None), outcomes
    winner = 2 + outcomes.index(None) % 2
    assert _where(promoted, alias) == winner
    with promoted.database.read() as session:
        latest = aliases.history(session, "core", alias)[0]
    assert (latest.from_version, latest.to_version) == (expected, winner)


def test_where_an_alias_may_not_point(promoted, checkpoint):
    draft = promoted.draft(checkpoint(9)).version
    with pytest.raises(VersionNotReady, match="draft"):
        promoted.move("production", draft, expected=1)
    with pytest.raises(NotFound, match="core@99"):
        promoted.move("production", 99, expected=1)
    with pytest.raises(NotFound, match="other"), promoted.database.write() as session:
        aliases.move(session, "other", "x", AliasMove(version=1), "tester", promoted.now)
    with pytest.raises(InvalidRequest, match="alias"):
        promoted.move("7", 1)
    assert _where(promoted) == 1
