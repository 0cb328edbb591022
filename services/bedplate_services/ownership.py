"""Who may write what, where it takes more than the owner's name to tell."""

from __future__ import annotations

from collections.abc import Iterable

from bedplate.errors import Forbidden, NotFound
from bedplate_registry import foundations, surfaces
from bedplate_registry.database import ReadSession
from bedplate_registry.principals import Principal


def is_foundation(session: ReadSession, name: str) -> bool:
    """Whether ``name`` is a foundation (and not an expert, or nothing)."""
    try:
        foundations.owner(session, name)
    except NotFound:
        return False
    return True


def require_surfaces(session: ReadSession, caller: Principal, names: Iterable[str]) -> None:
    """The caller may write for each of these surfaces.

    Raises:
        NotFound: a surface does not exist.
        Forbidden: one belongs to another team.
    """
    for name in sorted(set(names)):
        caller.require_owner(surfaces.owner(session, name))


def require_contributor(session: ReadSession, caller: Principal) -> None:
    """The caller may write to the items' catalogue, which all surfaces share: any team that owns
    something may.

    Raises:
        Forbidden: the team owns neither a surface nor a foundation.
    """
    if caller.is_admin:
        return
    owners = {surface.team for surface in surfaces.list(session)}
    owners |= {foundation.team for foundation in foundations.list(session)}
    if caller.team not in owners:
        raise Forbidden(
            f"The catalogue is for teams that own a surface or a foundation; {caller.team!r} owns none.",
            team=caller.team,
        )
