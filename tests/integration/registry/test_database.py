from __future__ import annotations

import pytest
from sqlalchemy import text

from bedplate.errors import AlreadyExists
from bedplate.wire.registry import TeamCreate
from bedplate_registry import teams


def _create(registry, name: str) -> None:
    with registry.database.write() as session:
        teams.create(session, TeamCreate(name=name), registry.now)


def test_a_read_session_sees_one_state(registry):
    with registry.database.read() as session:
        before = teams.list(session)
        _create(registry, "late-team")
        assert teams.list(session) == before
    with registry.database.read() as session:
        assert len(teams.list(session)) == len(before) + 1


def test_a_write_that_raises_leaves_nothing(registry):
    def create_twice():
        with registry.database.write() as session:
            teams.create(session, TeamCreate(name="half-team"), registry.now)
            teams.create(session, TeamCreate(name="half-team"), registry.now)

    with pytest.raises(AlreadyExists):
        create_twice()
    with registry.database.read() as session:
        assert "half-team" not in [team.name for team in teams.list(session)]


def test_writing_goes_on_after_reading_on_the_same_connection(registry):
    for number in range(20):
        with registry.database.read() as session:
            session.execute(text("SELECT 1"))
        _create(registry, f"team-{number}")
