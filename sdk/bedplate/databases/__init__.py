"""What registry and store share: the engine, the sessions and the migrations of a metadata database.

The one part of the ground floor that needs SQLAlchemy, and with it the extra ``server``. Nothing of the SDK
imports it; import-linter and tests/unit/sdk/test_imports.py hold that.
"""

from bedplate.databases.database import (
    Database,
    ReadSession,
    WriteSession,
    count_nothing,
    exit_if_refused,
)
from bedplate.databases.history import History, SchemaRefused, SchemaState
from bedplate.databases.limits import Limits
from bedplate.databases.retries import DATABASE_AWAY, OnRetry, sqlstate_of

__all__ = [
    "DATABASE_AWAY",
    "Database",
    "History",
    "Limits",
    "OnRetry",
    "ReadSession",
    "SchemaRefused",
    "SchemaState",
    "WriteSession",
    "count_nothing",
    "exit_if_refused",
    "sqlstate_of",
]
