"""kill -9 of a process that logs: whatever it acknowledged is in the log, bit for bit."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import datetime
from hashlib import sha256
from pathlib import Path

import pyarrow as pa
import pytest
from tests.integration.places import Places

from bedplate_store import impressions
from bedplate_store.database import Database
from bedplate_store.impressions import ImpressionLog
from bedplate_store.times import instant

_SERVER = """
import json, sys
from hashlib import sha256
from pathlib import Path
import numpy as np
from bedplate_store.database import Database
from bedplate_store.impressions import ImpressionLog, ImpressionRecord
from bedplate_store.objects import open_object_store

url, spool, objects, keys, name = sys.argv[1:]
log = ImpressionLog(Path(spool), open_object_store(objects, **json.loads(keys)), Database(url))
generator = np.random.default_rng()
for number in range(1_000_000):
    bits = generator.integers(0, 2**16, (100, 64), np.uint16)
    log.append(ImpressionRecord(
        request_id=f"{name}-{number:06d}", user="u", surface="feed", served_at_us=number, expert=None,
        items=[f"i{row}" for row in range(100)], scores=None, tae={"core@1": bits.view(np.float16)},
        predictions={"core@1": np.zeros(100, np.float32)},
    ))
    print(f"{name}-{number:06d}", sha256(bits.tobytes()).hexdigest(), flush=True)
"""


@pytest.mark.parametrize("seal_meanwhile", [False, True])
def test_acknowledged_impressions_survive_a_kill(
    places: Places, spool: Path, now: datetime, seal_meanwhile: bool
) -> None:
    database, objects = Database(places.store_url), places.objects.open()
    arguments = [places.store_url, str(spool), places.objects.url, json.dumps(places.objects.keys)]
    sealer = ImpressionLog(spool, objects, database)
    acknowledged: dict[str, str] = {}
    for name in ("first", "second"):
        server = subprocess.Popen(
            [sys.executable, "-c", _SERVER, *arguments, name],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert server.stdout is not None
        for line in server.stdout:
            acknowledged.update([line.split()])
            if len(acknowledged) % 50 == 0:
                if seal_meanwhile:
                    sealer.seal(now)
                if len(acknowledged) % 100 == 0:
                    break
        server.kill()
        for line in server.stdout:  # what it still said before it died
            acknowledged.update([line.split()] if len(line.split()) == 2 else [])
        server.wait()
        server.stdout.close()
    sealer.seal(now)
    table = pa.concat_tables(
        impressions.scan(database, objects, "feed", (instant(0), instant(2**55)), ["core@1"])
    )
    requests = table["request_id"].to_pylist()
    assert len(requests) == 100 * len(set(requests))
    bits = table["tae:core@1"].combine_chunks().flatten().to_numpy().reshape(-1, 100 * 64)
    logged = {
        request: sha256(row.tobytes()).hexdigest() for request, row in zip(requests[::100], bits, strict=True)
    }
    assert len(acknowledged) >= 200
    # One request more may have been written by each process, and killed before it could be acknowledged.
    assert len(logged) - len(acknowledged) in (0, 1, 2)
    assert {request: logged.get(request) for request in acknowledged} == acknowledged
    assert [*spool.glob("*.open")] == [*spool.glob("*.closed")] == []
    database.close()
