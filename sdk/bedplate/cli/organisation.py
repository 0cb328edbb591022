"""``bedplate teams``, ``tokens`` and ``surfaces``."""

from __future__ import annotations

from typing import Annotated

import typer

from bedplate.cli.options import AsJson, client_of, command, group
from bedplate.cli.output import print_json, say, show, show_list
from bedplate.errors import InvalidRequest
from bedplate.wire.registry import Role

teams = group("teams", "Who owns surfaces, foundations and experts.")
tokens = group("tokens", "Secrets that speak for a team.")
surfaces = group("surfaces", "Where recommendations are shown.")


def add(app: typer.Typer) -> None:
    """Add the commands to ``app``."""
    for one in (teams, tokens, surfaces):
        app.add_typer(one)


@command(teams, "list", "bedplate teams list")
def list_teams(context: typer.Context, json: AsJson = False) -> None:
    """List the teams."""
    show_list(
        client_of(context).teams.list(),
        ("TEAM", "DESCRIPTION", "CREATED"),
        lambda team: (team.name, team.description, team.created_at),
        as_json=json,
        empty="There are no teams yet. Create one: bedplate teams create feed-team",
    )


@command(teams, "create", 'bedplate teams create feed-team --description "ranks the feed"')
def create_team(context: typer.Context, name: str, description: str = "", json: AsJson = False) -> None:
    """Create a team (needs an admin's token)."""
    team = client_of(context).teams.create(name, description=description)
    show(team, as_json=json, done=f"Created. Give it a token: bedplate tokens issue {name}")


@command(teams, "show", "bedplate teams show feed-team")
def show_team(context: typer.Context, name: str, json: AsJson = False) -> None:
    """Show one team."""
    show(client_of(context).teams.get(name), as_json=json)


@command(tokens, "issue", 'bedplate tokens issue feed-team --description "training jobs"')
def issue(
    context: typer.Context,
    team: str,
    description: str = "",
    role: Annotated[str, typer.Option(help="member or admin.")] = "member",
    json: AsJson = False,
) -> None:
    """Make a token; its secret is shown this once."""
    roles: dict[str, Role] = {"member": "member", "admin": "admin"}
    if role not in roles:
        raise InvalidRequest(f"--role {role}: use member or admin.")
    token = client_of(context).tokens.issue(team, description=description, role=roles[role])
    show(token, as_json=json, done="Keep the secret now: it is not stored and cannot be shown again.")


@command(tokens, "list", "bedplate tokens list feed-team")
def list_tokens(context: typer.Context, team: str, json: AsJson = False) -> None:
    """List a team's tokens, without their secrets."""
    show_list(
        client_of(context).tokens.list(team),
        ("ID", "ROLE", "DESCRIPTION", "CREATED", "REVOKED"),
        lambda token: (token.id, token.role, token.description, token.created_at, token.revoked_at),
        as_json=json,
        empty=f"{team} has no tokens. Make one: bedplate tokens issue {team}",
    )


@command(tokens, "revoke", "bedplate tokens revoke feed-team 3")
def revoke(context: typer.Context, team: str, token_id: int, json: AsJson = False) -> None:
    """Refuse a token from now on."""
    client_of(context).tokens.revoke(team, token_id)
    if json:
        print_json({"team": team, "id": token_id, "revoked": True})
    else:
        say(f"Token {token_id} of {team} is revoked.")


@command(surfaces, "list", "bedplate surfaces list")
def list_surfaces(context: typer.Context, json: AsJson = False) -> None:
    """List the surfaces."""
    show_list(
        client_of(context).surfaces.list(),
        ("SURFACE", "TEAM", "DESCRIPTION", "CREATED"),
        lambda one: (one.name, one.team, one.description, one.created_at),
        as_json=json,
        empty="There are no surfaces yet. Create one: bedplate surfaces create feed --team feed-team",
    )


@command(surfaces, "create", "bedplate surfaces create feed --team feed-team")
def create_surface(
    context: typer.Context,
    name: str,
    team: Annotated[str, typer.Option(help="The team that owns it.")],
    description: str = "",
    json: AsJson = False,
) -> None:
    """Create a surface."""
    surface = client_of(context).surfaces.create(name, team, description=description)
    show(surface, as_json=json, done="Created.")


@command(surfaces, "show", "bedplate surfaces show feed")
def show_surface(context: typer.Context, name: str, json: AsJson = False) -> None:
    """Show one surface."""
    show(client_of(context).surfaces.get(name), as_json=json)
