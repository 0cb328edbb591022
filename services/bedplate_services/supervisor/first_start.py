"""What must be there before the first child starts: schemas, the admin team, its token, the signing key."""

from __future__ import annotations

import json
from datetime import datetime

from bedplate.errors import NotFound
from bedplate.wire.registry import TeamCreate, TokenCreate
from bedplate_registry import teams, tokens
from bedplate_registry.database import Database as RegistryDatabase
from bedplate_registry.database import WriteSession
from bedplate_services.supervisor.data_directory import DataDirectory, write_private
from bedplate_store.database import Database as StoreDatabase

ADMIN_TEAM = "admin"


def migrate(directory: DataDirectory) -> None:
    """Bring both databases to the newest schema."""
    for database in (
        RegistryDatabase(directory.registry_database_url),
        StoreDatabase(directory.store_database_url),
    ):
        database.migrate()
        database.close()


def ensure_admin_token(directory: DataDirectory, now: datetime) -> str:
    """The admin team's token; issued and written to ``admin-token`` (0600) where that file is missing.

    The registry keeps the hash alone, so a lost file means a new token; the old one
    stays valid until revoked.
    """
    if directory.admin_token.exists():
        return directory.admin_token.read_text(encoding="utf-8").strip()
    database = RegistryDatabase(directory.registry_database_url)
    try:
        with database.write() as session:
            _ensure_team(session, now)
            issue = TokenCreate(description="made by bedplate up", role="admin")
            secret: str = tokens.issue(session, ADMIN_TEAM, issue, now).secret
    finally:
        database.close()
    write_private(directory.admin_token, secret + "\n")
    return secret


def _ensure_team(session: WriteSession, now: datetime) -> None:
    try:
        teams.get(session, ADMIN_TEAM)
    except NotFound:
        teams.create(session, TeamCreate(name=ADMIN_TEAM, description="runs this platform"), now)


def write_client(directory: DataDirectory, url: str, token: str) -> None:
    """Leave URL and token where the SDK and the command line look for them."""
    write_private(directory.client, json.dumps({"url": url, "token": token}, indent=2) + "\n")
