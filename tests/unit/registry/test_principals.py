from __future__ import annotations

import pytest

from bedplate.errors import Forbidden
from bedplate_registry.principals import Principal

MEMBER = Principal("feed-team", "member", 1)
ADMIN = Principal("platform", "admin", 2)


def test_members_own_what_their_team_owns():
    MEMBER.require_owner("feed-team")
    with pytest.raises(Forbidden, match="core-team") as error:
        MEMBER.require_owner("core-team")
    assert error.value.context == {"owner": "core-team", "team": "feed-team"}
    with pytest.raises(Forbidden):
        MEMBER.require_admin()


def test_admins_may_do_everything():
    ADMIN.require_owner("feed-team")
    ADMIN.require_admin()
    ADMIN.require_token("feed-team", "admin")


def test_members_issue_members_of_their_own_team_only():
    MEMBER.require_token("feed-team", "member")
    with pytest.raises(Forbidden, match="admin"):
        MEMBER.require_token("feed-team", "admin")
    with pytest.raises(Forbidden):
        MEMBER.require_token("core-team", "member")


def test_histories_name_the_caller():
    assert MEMBER.name == "feed-team (token 1)"
