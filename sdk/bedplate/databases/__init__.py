"""What registry and store share: the engine, the sessions and the migrations of a metadata database.

The one part of the ground floor that needs SQLAlchemy, and with it the extra ``server``. Nothing of the SDK
imports it; import-linter and tests/unit/sdk/test_imports.py hold that.
"""

from bedplate.databases.database import Database, ReadSession, WriteSession, exit_if_refused
from bedplate.databases.history import History, SchemaRefused, SchemaState
from bedplate.databases.limits import Limits

__all__ = [
    "Database",
    "History",
    "Limits",
    "ReadSession",
    "SchemaRefused",
    "SchemaState",
    "WriteSession",
    "exit_if_refused",
]
