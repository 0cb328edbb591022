"""The metadata database of the registry."""

from __future__ import annotations

from pathlib import Path

from bedplate import databases
from bedplate_registry.tables import Base

HISTORY = databases.History(
    name="registry",
    scripts=Path(__file__).parent / "migrations",
    version_table="registry_revision",
    lock=0xBED0001,
    metadata=Base.metadata,
)


class ReadSession(databases.ReadSession):
    """A session of the registry that nobody commits."""


class WriteSession(ReadSession, databases.WriteSession):
    """A session of the registry that :meth:`Database.write` commits."""


class Database(databases.Database[ReadSession, WriteSession]):
    """The registry's, see :class:`bedplate.databases.Database`."""

    def __init__(
        self,
        url: str,
        limits: databases.Limits | None = None,
        on_retry: databases.OnRetry = databases.count_nothing,
    ) -> None:
        super().__init__(
            url,
            limits or databases.Limits(),
            on_retry,
            history=HISTORY,
            reads=ReadSession,
            writes=WriteSession,
        )
