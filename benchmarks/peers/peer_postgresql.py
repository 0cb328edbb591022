"""PostgreSQL: the vectors' bytes in a table, read by primary key with a prepared, binary statement.

PEERS_POSTGRESQL_URL names the server; the table is temporary in all but name and dropped at the end.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import psycopg
from measure import run
from numpy.typing import NDArray

_TABLE = f"bedplate_peer_{os.getpid()}"
_QUERY = f"SELECT key, vector FROM {_TABLE} WHERE key = ANY(%b)"  # noqa: S608  # a name of our own


class PostgreSQL:
    name = "postgresql"
    interface = "SELECT by primary key over TCP, psycopg, binary, prepared"

    def start(self, folder: Path, dim: int) -> None:
        url = os.environ.get("PEERS_POSTGRESQL_URL", "postgresql://postgres@127.0.0.1:5432/postgres")
        self._connection = psycopg.connect(url, autocommit=True)
        self.interface += f", server {self._connection.info.parameter_status('server_version')}"
        self._connection.execute(f"CREATE UNLOGGED TABLE {_TABLE} (key bigint PRIMARY KEY, vector bytea)")
        self._dim = dim

    def load(self, keys: NDArray[np.int64], vectors: NDArray[np.float32]) -> None:
        with self._connection.cursor().copy(f"COPY {_TABLE} FROM STDIN (FORMAT binary)") as copy:
            copy.set_types(["int8", "bytea"])
            for key, row in zip(keys.tolist(), vectors, strict=True):
                copy.write_row((key, row.tobytes()))
        self._connection.execute(f"ANALYZE {_TABLE}")

    def lookup(self, keys: NDArray[np.int64]) -> NDArray[np.float32]:
        cursor = self._connection.cursor(binary=True)
        found = dict(cursor.execute(_QUERY, [keys.tolist()], prepare=True).fetchall())
        joined = b"".join([found[key] for key in keys.tolist()])
        return np.frombuffer(joined, np.float32).reshape(-1, self._dim)

    def processes(self) -> list[int]:
        return [self._connection.info.backend_pid]

    def close(self) -> None:
        if hasattr(self, "_connection"):
            self._connection.execute(f"DROP TABLE IF EXISTS {_TABLE}")
            self._connection.close()


if __name__ == "__main__":
    run(PostgreSQL())
