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
        ("ranker@1", {"reads": [{"space": "core@1/item"}, {"space": "core@01/item"}]}, InvalidRequest),
        ("ranker@1", {"reads": [{"space": "core@production/item"}]}, InvalidRequest),
        ("ranker@1", {"reads": [{"space": "core@1"}]}, InvalidRequest),
        ("ranker@1", {"reads": [{"space": "core@1/user"}]}, NotFound),
        ("ranker@1", {"reads": [{"space": "core@9/item"}]}, NotFound),
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


def test_what_was_read_is_kept_with_the_storage_that_was_meant(trained):
    reads = [
        {"space": "core@1/tae", "storage": "int8", "snapshot": 4},
        {"space": "core@01/item"},
    ]
    recorded = _record(trained, "ranker@1", reads=reads)
    assert [read.model_dump() for read in recorded.reads] == [
        {"space": "core@1/item", "storage": "float16", "snapshot": None},
        {"space": "core@1/tae", "storage": "int8", "snapshot": 4},
    ]
    plain = _record(trained, "ranker@1")
    assert plain.reads == []
    with trained.database.read() as session:
        assert evaluations.list(session, surface="feed") == [recorded, plain]
        assert evaluations.list(session, subject="core@1") == []


def test_ne_of_storages_counts_versions_of_the_same_weights_as_one(trained):
    again = trained.ready(1)  # the weights of core@1
    _record(trained, "ranker@1", 0.80, reads=[{"space": "core@1/item"}])
    for space, ne in ((f"{again.reference}/item", 0.82), ("core@2/item", 0.99)):
        _record(trained, "ranker@2", ne, reads=[{"space": space, "storage": "int8"}])
    with trained.database.read() as session:
        for version in (trained.get(1), again):
            (found,) = evaluations.ne_of_storages(session, version, "item")
            assert (found.storage, found.against) == ("int8", "float16")
            assert found.cost == pytest.approx(0.02)
        assert evaluations.ne_of_storages(session, trained.get(2), "item") == []
        assert evaluations.ne_of_storages(session, again, "tae") == []
