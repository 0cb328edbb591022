"""What must be there before the first child starts: schemas, the admin team, its token, the signing key."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime

from bedplate.errors import Unauthenticated
from bedplate.wire.shards import SHARDS_MAX
from bedplate_registry import tokens
from bedplate_registry.database import Database as RegistryDatabase
from bedplate_services.supervisor.data_directory import DataDirectory, write_private
from bedplate_services.supervisor.engines import Engines, reachable
from bedplate_store.database import Database as StoreDatabase
from bedplate_store.shard_assignments import assign_evenly


def migrate(engines: Engines) -> None:
    """Bring both databases to the newest schema.

    Raises:
        Unavailable: one of them cannot be connected to.
    """
    registry, store = RegistryDatabase(engines.registry_database), StoreDatabase(engines.store_database)
    with reachable("registry_database", engines.registry_database):
        registry.migrate()
    with reachable("store_database", engines.store_database):
        store.migrate()
    registry.close()
    store.close()


def ensure_admin_token(directory: DataDirectory, engines: Engines, now: datetime) -> str:
    """The admin token in ``admin-token`` (0600); made where that file is missing.

    The file is written before the registry learns the hash, so a start that is cut off goes on with the
    same token. The registry cannot give back a lost one: a missing file means a further token.

    Raises:
        Unauthenticated: the token in the file was revoked.
    """
    secret = directory.read_or_make_secret(directory.admin_token, tokens.SECRET_PREFIX)
    database = RegistryDatabase(engines.registry_database)
    try:
        database.transact(lambda session: tokens.bootstrap_admin(session, now, secret))
    except Unauthenticated as error:
        raise Unauthenticated(
            f"The token in {directory.admin_token} was revoked. Delete the file to have a new one made."
        ) from error
    finally:
        database.close()
    return secret


def assign_shards(engines: Engines, nodes: Sequence[str], now: datetime) -> None:
    """Have ``nodes`` serve all shards of all spaces, evenly unless they do already."""
    database = StoreDatabase(engines.store_database)
    database.transact(lambda session: assign_evenly(session, nodes, SHARDS_MAX, now, moved_by="bedplate-up"))
    database.close()


def write_client(directory: DataDirectory, url: str, token: str) -> None:
    """Leave URL and token where the SDK and the command line look for them."""
    write_private(directory.client, json.dumps({"url": url, "token": token}, indent=2) + "\n")
