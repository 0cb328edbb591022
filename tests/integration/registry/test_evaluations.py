from __future__ import annotations

from datetime import UTC, datetime

import pytest

from bedplate.errors import InvalidRequest, NotFound
from bedplate.wire.registry import EvaluationCreate
from bedplate_registry import evaluations

START, END = datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 8, tzinfo=UTC)


def _record(registry, subject, ne=0.8, team="feed-team", **members):
    values = {"surface": "feed", "window_start": START, "window_end": END, "rows": 10} | members
    document = EvaluationCreate(subject=subject, metrics={"ne": ne}, **values)
    with registry.database.write() as session:
        return evaluations.record(session, document, team, registry.later())


@pytest.fixture
def trained(registry):
    registry.ready(1)
    registry.ready(2)
    registry.expert()
    registry.expert_ready(pinned="core@1")
    registry.expert_ready(pinned="core@2", seed=1)
    return registry


def test_record_and_list(trained):
    first = _record(trained, "core@1", seed=2**40, variant="tae")
    second = _record(trained, "ranker@2", task="like")
    assert (first.team, first.created_at.tzinfo, first.window_end) == ("feed-team", UTC, END)
    with trained.database.read() as session:
        assert evaluations.list(session) == [first, second]
        assert evaluations.list(session, subject="ranker@2") == [second]
        assert evaluations.list(session, surface="feed", task="like") == [second]
        assert evaluations.list(session, surface="reels") == []


@pytest.mark.parametrize(
    ("subject", "members", "error"),
    [
        ("core@9", {}, NotFound),
        ("nobody@1", {}, NotFound),
        ("core@1", {"surface": "nowhere"}, NotFound),
        ("core@1", {"team": "nobody"}, NotFound),
        ("core@production", {}, InvalidRequest),
        ("core", {}, InvalidRequest),
        ("core@1", {"ne": float("nan")}, InvalidRequest),
        ("core@1", {"window_end": START}, InvalidRequest),
        ("core@1", {"seed": 2**64}, InvalidRequest),
        ("core@1", {"rows": 2**64}, InvalidRequest),
        ("core@1", {"variant": "\x00"}, InvalidRequest),
    ],
)
def test_evaluations_that_are_refused(trained, subject, members, error):
    with pytest.raises(error):
        _record(trained, subject, **members)
    with trained.database.read() as session:
        assert evaluations.list(session) == []


def test_transfer_between(trained):
    with trained.database.read() as session, pytest.raises(NotFound, match="pinned"):
        evaluations.transfer_between(session, "feed", "core@1", "core@2")
    _record(trained, "core@1", 0.90)
    _record(trained, "core@2", 0.80)
    _record(trained, "ranker@1", 0.88, variant="tae", seed=1)
    _record(trained, "ranker@2", 0.80, variant="tae", seed=1)
    trained.move("production", 2)
    with trained.database.read() as session:
        (found,) = evaluations.transfer_between(session, "feed", "core@1", "core@production")
        assert found.ratio == pytest.approx(0.8)
        assert (found.to_version, found.expert, found.variant) == ("core@2", "ranker", "tae")
        for old, new, surface in (("core@1", "core@9", "feed"), ("core@1", "core@2", "nowhere")):
            with pytest.raises(NotFound):
                evaluations.transfer_between(session, surface, old, new)
