"""How much of a PostgreSQL server a process takes, and how long it waits for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Limits:
    """Times in seconds; 0 of a statement, lock or idle transaction: without end. SQLite takes no notice.

    Attributes:
        pool_size: connections kept open, for each database and process.
        pool_overflow: further ones, opened at peaks and closed again.
        pool_seconds: how long a transaction waits for a free connection.
        connect_seconds: to connect to the server.
        statement_seconds: for one statement.
        lock_seconds: for a lock that another transaction holds.
        idle_in_transaction_seconds: how long a transaction may hold its locks and do nothing, as one of a
            frozen process does; longer than the object store is waited for.
        recycle_seconds: how old a connection grows before it is replaced.
    """

    pool_size: int = 5
    pool_overflow: int = 10
    pool_seconds: float = 10
    connect_seconds: float = 5
    statement_seconds: float = 60
    lock_seconds: float = 30
    idle_in_transaction_seconds: float = 120
    recycle_seconds: float = 1800

    def connect_args(self) -> dict[str, Any]:
        """For psycopg; the server itself then keeps the times of statements, locks and idle transactions."""
        timeouts = {
            "statement_timeout": self.statement_seconds,
            "lock_timeout": self.lock_seconds,
            "idle_in_transaction_session_timeout": self.idle_in_transaction_seconds,
        }
        return {
            "connect_timeout": max(1, round(self.connect_seconds)),  # libpq counts whole seconds
            "options": " ".join(f"-c {name}={round(value * 1000)}" for name, value in timeouts.items()),
            # A server that vanished without a word is noticed after half a minute, not after two hours.
            "keepalives_idle": 15,
            "keepalives_interval": 5,
            "keepalives_count": 3,
            "tcp_user_timeout": 30_000,
        }
