"""Setting the stage: teams, surfaces, tokens, the catalogue and the first part of the timeline."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from bedplate import Client
from bedplate.wire.store import Item
from bedplate_services.demo.worlds import World

FOUNDATION = "core"
FOUNDATION_TEAM = "foundation"
EVENTS_AT_ONCE = 50_000
ITEMS_AT_ONCE = 1000


@dataclass(frozen=True)
class Cast:
    """Who acts in the demo: each client holds its own team's token.

    Attributes:
        platform: the administrator that ``bedplate up`` made.
        foundation: the foundation team.
        surfaces: surface -> the expert team that owns it.
    """

    platform: Client
    foundation: Client
    surfaces: dict[str, Client]


def create_cast(platform: Client, surfaces: list[str], advance: Callable[[int], None]) -> Cast:
    """Create the foundation, one team per surface, and a token for each team."""

    def team_client(team: str, description: str) -> Client:
        platform.teams.create(team, description=description)
        issued = platform.tokens.issue(team, description="demo")
        return Client(url=platform.url, token=issued.secret)

    foundation = team_client(FOUNDATION_TEAM, "publishes the foundation model")
    foundation.foundations.create(FOUNDATION, team=FOUNDATION_TEAM, description="HSTU over all surfaces")
    clients: dict[str, Client] = {}
    for surface in surfaces:
        clients[surface] = team_client(f"{surface}-team", f"ranks the {surface} surface")
        platform.surfaces.create(surface, team=f"{surface}-team")
        advance(1)
    return Cast(platform, foundation, clients)


def send_items(client: Client, world: World, advance: Callable[[int], None]) -> None:
    """Put the world's catalogue."""
    items = [Item(key=key, features=dict(features)) for key, features in world.items.items()]
    for first in range(0, len(items), ITEMS_AT_ONCE):
        batch = items[first : first + ITEMS_AT_ONCE]
        client.items.put(batch)
        advance(len(batch))


def send_events(client: Client, world: World, start: int, end: int, advance: Callable[[int], None]) -> None:
    """Send the events with start <= event_time < end (microseconds) in batches, in the order of time."""
    events = world.window(start, end)
    for first in range(0, len(events), EVENTS_AT_ONCE):
        batch = events.slice(first, EVENTS_AT_ONCE)
        client.events.send(batch)
        advance(len(batch))
