"""``python -m bedplate_services.provisioning``: what a new installation needs before its first request.

The bucket, the first administrator's token, and who serves the shards. What is there already stays, so it may
run at every upgrade. ``bedplate up`` does the same for its own directory (supervisor/first_start.py).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from datetime import datetime

from pydantic import SecretStr, ValidationError
from sqlalchemy.exc import SQLAlchemyError

from bedplate.errors import BedplateError
from bedplate.wire.shards import SHARDS_MAX
from bedplate_registry import tokens
from bedplate_registry.database import Database as RegistryDatabase
from bedplate_services.composition import open_uncached, system_clock
from bedplate_services.migrations import reason
from bedplate_services.settings import Settings
from bedplate_store.database import Database as StoreDatabase
from bedplate_store.objects.retries import uncounted
from bedplate_store.objects.s3 import S3ObjectStore
from bedplate_store.shard_assignments import assign_evenly

_EXAMPLE = """
example:
  BEDPLATE_ADMIN_TOKEN=$(openssl rand -hex 32) python -m bedplate_services.provisioning --store-node=store-0
"""


class ProvisioningSettings(Settings):
    """Those of the services, and:

    Attributes:
        admin_token: the first administrator's, 32 characters or more.
    """

    admin_token: SecretStr


def main(arguments: Sequence[str]) -> int:
    """Do it and tell; the exit status."""
    nodes = _parse(arguments).store_node
    try:
        settings = ProvisioningSettings()
        now = system_clock()
        _say(ensure_bucket(settings))
        _say(ensure_administrator(settings, now))
        if nodes:
            _say(assign_shards(settings, nodes, now))
    except ValidationError as error:
        missing = ", ".join(f"BEDPLATE_{str(fault['loc'][0]).upper()}" for fault in error.errors())
        print(f"Set {missing} (docs/settings.md).", file=sys.stderr)
        return 1
    except BedplateError as error:
        print(f"{error.title}: {error.detail}", file=sys.stderr)
        return 1
    except SQLAlchemyError as error:
        print(f"A database cannot be reached, or is not migrated: {reason(error)}", file=sys.stderr)
        return 1
    return 0


def ensure_bucket(settings: Settings) -> str:
    """Make the bucket where it is missing; what was done, in words.

    Raises:
        Unavailable, Forbidden: the object store does not answer, or refuses.
    """
    objects = open_uncached(settings, uncounted)
    if not isinstance(objects, S3ObjectStore):
        return f"{settings.objects_url} needs no bucket"
    objects.ensure_bucket()
    return f"the bucket {objects.bucket} is there"


def ensure_administrator(settings: ProvisioningSettings, now: datetime) -> str:
    """Have the token of ``settings`` be an administrator's; what was done, in words.

    Raises:
        InvalidRequest: it is too short.
        Unauthenticated: it was revoked.
    """
    database = RegistryDatabase(settings.registry_database_url, settings.database_limits)
    try:
        secret = settings.admin_token.get_secret_value()
        issued = database.transact(lambda session: tokens.bootstrap_admin(session, now, secret))
    finally:
        database.close()
    return f"the first administrator is of team {issued.team}"


def assign_shards(settings: Settings, nodes: Sequence[str], now: datetime) -> str:
    """Have ``nodes`` serve all shards of all spaces evenly; what was done, in words."""
    database = StoreDatabase(settings.store_database_url, settings.database_limits)
    try:
        database.transact(
            lambda session: assign_evenly(session, nodes, SHARDS_MAX, now, moved_by="provisioning")
        )
    finally:
        database.close()
    return f"all shards are assigned to {', '.join(nodes)}"


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bedplate_services.provisioning",
        description="Make the bucket, register the token in BEDPLATE_ADMIN_TOKEN as an administrator's, and "
        "assign all shards to the store nodes. What is there already stays.",
        epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--store-node",
        action="append",
        default=[],
        metavar="NAME",
        help="give this node its share of every space; once for each node",
    )
    return parser.parse_args(arguments)


def _say(message: str) -> None:
    print(message, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
