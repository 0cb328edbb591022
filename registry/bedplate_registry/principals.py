"""Who is asking, and what they may do."""

from __future__ import annotations

from dataclasses import dataclass

from bedplate.errors import Forbidden
from bedplate.wire.registry import Role


@dataclass(frozen=True, slots=True)
class Principal:
    """The team behind a token. An admin may do everything; a member writes only what the team owns."""

    team: str
    role: Role
    token_id: int

    @property
    def is_admin(self) -> bool:
        return self.role == "admin"

    @property
    def name(self) -> str:
        """How histories name the caller, e.g. ``feed-team (token 3)``."""
        return f"{self.team} (token {self.token_id})"

    def require_owner(self, team: str) -> None:
        """Raises Forbidden unless the caller is of ``team`` or an admin."""
        if not self.is_admin and self.team != team:
            raise Forbidden(
                f"This belongs to team {team!r} and the token to team {self.team!r}; "
                f"ask team {team!r} or an admin to do it.",
                owner=team,
                team=self.team,
            )

    def require_admin(self) -> None:
        """Raises Forbidden unless the caller is an admin."""
        if not self.is_admin:
            raise Forbidden("Only an admin's token may do this.", team=self.team)

    def require_token(self, team: str, role: Role) -> None:
        """Raises Forbidden unless the caller may issue or revoke such a token: members do so for members of
        their own team, admins for everybody."""
        self.require_owner(team)
        if role == "admin":
            self.require_admin()
