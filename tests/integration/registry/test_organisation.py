from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import select

from bedplate.errors import AlreadyExists, Forbidden, InvalidRequest, NotFound, Unauthenticated
from bedplate.wire.registry import (
    ExpertCreate,
    FoundationCreate,
    SurfaceCreate,
    TeamCreate,
    TokenCreate,
)
from bedplate_registry import experts, foundations, surfaces, teams, tokens
from bedplate_registry.tables import Base


def test_create_get_list(registry):
    with registry.database.read() as session:
        assert [team.name for team in teams.list(session)] == ["core-team", "feed-team"]
        assert teams.get(session, "feed-team").created_at == registry.now
        assert [surface.name for surface in surfaces.list(session)] == ["feed"]
        assert surfaces.get(session, "feed").team == "feed-team"
        assert [foundation.name for foundation in foundations.list(session)] == ["core"]
        assert foundations.get(session, "core").latest_version is None


@pytest.mark.parametrize(
    ("module", "document"),
    [
        (teams, TeamCreate(name="core-team")),
        (surfaces, SurfaceCreate(name="feed", team="core-team")),
        (foundations, FoundationCreate(name="core", team="feed-team")),
    ],
)
def test_names_are_taken_once(registry, module, document):
    with pytest.raises(AlreadyExists, match="already"), registry.database.write() as session:
        module.create(session, document, registry.now)


def test_names_sort_bytewise(registry):
    with registry.database.write() as session:
        for name in ("b", "a_b", "a-b", "ab"):
            teams.create(session, TeamCreate(name=name), registry.now)
        found = [team.name for team in teams.list(session)]
    assert found == sorted(found)


def test_unknown_owner_is_named(registry):
    with pytest.raises(NotFound, match="nobody"), registry.database.write() as session:
        surfaces.create(session, SurfaceCreate(name="reels", team="nobody"), registry.now)


@pytest.mark.parametrize("name", ["nobody", "No Such", "nul\x00", ""])
def test_what_is_not_there_is_not_found(registry, name):
    with registry.database.read() as session:
        for module in (teams, surfaces, foundations, experts):
            with pytest.raises(NotFound):
                module.get(session, name)


def test_nul_in_a_text_is_refused(registry):
    with pytest.raises(InvalidRequest, match="NUL"), registry.database.write() as session:
        teams.create(session, TeamCreate(name="x", description="a\x00b"), registry.now)


def test_foundation_and_expert_share_one_name_space(registry):
    registry.expert("ranker")
    with registry.database.write() as session:
        with pytest.raises(AlreadyExists, match="expert"):
            foundations.create(session, FoundationCreate(name="ranker", team="core-team"), registry.now)
        with pytest.raises(AlreadyExists, match="foundation"):
            experts.create(session, ExpertCreate(name="core", surface="feed"), registry.now)


def test_owners(registry):
    registry.expert("ranker")
    with registry.database.write() as session:
        secret = tokens.issue(session, "feed-team", TokenCreate(), registry.now).secret
        principal = tokens.authenticate(session, secret)
        principal.require_owner(surfaces.owner(session, "feed"))
        principal.require_owner(experts.owner(session, "ranker"))
        with pytest.raises(Forbidden, match="core-team"):
            principal.require_owner(foundations.owner(session, "core"))
        with pytest.raises(NotFound):
            experts.owner(session, "nobody")


def _everything_stored(registry) -> str:
    with registry.database.read() as session:
        rows = [row for table in Base.metadata.sorted_tables for row in session.execute(select(table))]
    stored = repr(rows)
    if registry.database.url.startswith("sqlite"):
        path = Path(registry.database.url.removeprefix("sqlite:///"))
        files = [path, path.with_name(path.name + "-wal")]
        stored += "".join(file.read_bytes().decode("latin-1") for file in files if file.exists())
    return stored


def test_the_secret_is_nowhere_in_the_database(registry):
    with registry.database.write() as session:
        issued = tokens.issue(session, "feed-team", TokenCreate(description="laptop"), registry.now)
    stored = _everything_stored(registry)
    assert "laptop" in stored
    assert issued.secret not in stored
    assert issued.secret.removeprefix(tokens.SECRET_PREFIX) not in stored


def test_token_life(registry):
    with registry.database.write() as session:
        issued = tokens.issue(session, "feed-team", TokenCreate(role="member"), registry.now)
        other = tokens.issue(session, "feed-team", TokenCreate(role="admin"), registry.now)
    with registry.database.read() as session:
        principal = tokens.authenticate(session, issued.secret)
        assert (principal.team, principal.role, principal.token_id) == ("feed-team", "member", issued.id)
        assert tokens.authenticate(session, other.secret).is_admin
        assert [token.id for token in tokens.list(session, "feed-team")] == [issued.id, other.id]
        assert tokens.list(session, "core-team") == []
    first, second = registry.later(), registry.later()
    with registry.database.write() as session:
        assert tokens.revoke(session, "feed-team", issued.id, first).revoked_at == first
        assert tokens.revoke(session, "feed-team", issued.id, second).revoked_at == first
    with registry.database.read() as session:
        with pytest.raises(Unauthenticated, match="revoked"):
            tokens.authenticate(session, issued.secret)
        assert tokens.authenticate(session, other.secret).token_id == other.id


@pytest.mark.parametrize("secret", ["", "bedplate_guess", "\x00", "\udcff", "ä" * 1000])
def test_unknown_secrets(registry, secret):
    with registry.database.read() as session, pytest.raises(Unauthenticated):
        tokens.authenticate(session, secret)


def test_a_team_cannot_revoke_anothers_token(registry):
    with registry.database.write() as session:
        issued = tokens.issue(session, "feed-team", TokenCreate(), registry.now)
    with pytest.raises(NotFound), registry.database.write() as session:
        tokens.revoke(session, "core-team", issued.id, registry.now)
    with registry.database.read() as session:
        tokens.authenticate(session, issued.secret)
        with pytest.raises(NotFound):
            tokens.list(session, "nobody")


def test_bootstrap_is_idempotent_for_a_given_secret(registry):
    secret = "s" * 40
    with registry.database.write() as session:
        first = tokens.bootstrap_admin(session, registry.now, secret)
    with registry.database.write() as session:
        again = tokens.bootstrap_admin(session, registry.later(), secret)
        fresh = tokens.bootstrap_admin(session, registry.later())
        assert tokens.authenticate(session, secret).is_admin
        assert tokens.authenticate(session, fresh.secret).is_admin
        with pytest.raises(InvalidRequest, match="32"):
            tokens.bootstrap_admin(session, registry.now, "short")
        tokens.revoke(session, tokens.ADMIN_TEAM, first.id, registry.now)
        with pytest.raises(Unauthenticated):
            tokens.bootstrap_admin(session, registry.now, secret)
    assert again == first
