"""A process telling the others, through the database, which snapshots it has open."""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Protocol

from sqlalchemy.exc import SQLAlchemyError

from bedplate_store import reader_processes
from bedplate_store.database import Database
from bedplate_store.reader_processes import OpenSpace, ReaderProcess
from bedplate_store.spaces import SpaceKey

logger = logging.getLogger(__name__)

_POLL_SECONDS = 0.1
_CLOSE_SECONDS = 5.0


class Readers(Protocol):
    """What is needed of :class:`bedplate_store.readers.SpaceReaders`."""

    follows: bool

    def opened(self) -> Mapping[SpaceKey, OpenSpace]: ...


class ReaderAnnouncer:
    """Writes what ``readers`` have open when that changes, and every two seconds that the process lives.

    A thread of its own, because neither a slow database may keep readers from refreshing nor a long fetch
    make a living process look dead.
    """

    def __init__(
        self,
        database: Database,
        readers: Readers,
        *,
        service: str,
        url: str,
        node: str | None = None,
        now: Callable[[], datetime],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.id = uuid.uuid4().hex
        self._database = database
        self._readers = readers
        self._service = service
        self._url = url
        self._node = node
        self._process = f"{socket.gethostname()}/{os.getpid()}"
        self._now = now
        self._clock = clock
        self._started_at = now()
        self._told: dict[SpaceKey, OpenSpace] | None = None
        self._told_at = 0.0
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None

    def announce_if_due(self) -> bool:
        """Tell the others if there is something new or the last time is a while ago; whether it did."""
        spaces = dict(self._readers.opened())
        # Not for every write: sequences go along with the next heartbeat.
        present = _without_sequences(spaces)
        since = self._clock() - self._told_at
        if present == self._told and since < reader_processes.HEARTBEAT_SECONDS:
            return False
        reader = ReaderProcess(
            self.id, self._service, self._process, self._url, self._readers.follows, spaces, self._node
        )
        self._database.transact(
            lambda session: reader_processes.announce(
                session, reader, started_at=self._started_at, now=self._now()
            )
        )
        self._told, self._told_at = present, self._clock()
        return True

    @property
    def told(self) -> bool:
        """Whether the others know which snapshots and shards are open here."""
        return self._told == _without_sequences(self._readers.opened())

    def start(self) -> None:
        """Announce in a thread of its own from now on."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="reader-announcer", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """Stop, and tell the others that the process ends."""
        if self._thread is None:
            return
        self._stopped.set()
        self._thread.join(_CLOSE_SECONDS)
        self._thread = None
        try:
            self._database.transact(lambda session: reader_processes.withdraw(session, self.id))
        except SQLAlchemyError:
            logger.exception("the end of this reader could not be told; it counts as dead after a while")

    def _run(self) -> None:
        while not self._stopped.wait(_POLL_SECONDS):
            try:
                self.announce_if_due()
            except SQLAlchemyError:
                logger.exception("what this reader has open could not be told")


def _without_sequences(spaces: Mapping[SpaceKey, OpenSpace]) -> dict[SpaceKey, OpenSpace]:
    return {key: replace(space, sequence=0) for key, space in spaces.items()}
