"""Claims from several processes at once."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import datetime

from bedplate_store import jobs
from bedplate_store.database import Database

_WORKER = """
import json, sys
from datetime import datetime
from bedplate_store import leases
from bedplate_store.database import Database

url, job_id, owner, now = sys.argv[1], sys.argv[2], sys.argv[3], datetime.fromisoformat(sys.argv[4])
database = Database(url)
sys.stdin.readline()  # all start together
taken = []
for ordinal in range(20):
    claim = leases.claim(database, f"{job_id}/0/{ordinal}", owner, 30, now)
    if claim is not None:
        with database.write() as session:
            leases.commit(session, claim, {"owner": owner}, now)
        taken.append(ordinal)
print(json.dumps(taken))
"""


def test_of_many_processes_one_claims_each_partition(database: Database, now: datetime) -> None:
    partitions = [jobs.PartitionSpec({}, 1) for _ in range(20)]
    with database.write() as session:
        job = jobs.create(
            session,
            kind="embed",
            subject="core@1/item",
            team="foundation",
            params={},
            stages=[jobs.Stage("embed", partitions)],
            now=now,
        )
    url = database.engine.url.render_as_string(hide_password=False)
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", _WORKER, url, job.id, f"worker-{number}", now.isoformat()],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(3)
    ]
    for worker in workers:
        assert worker.stdin is not None
        worker.stdin.write("go\n")
        worker.stdin.flush()
    taken = [json.loads(worker.communicate(timeout=60)[0]) for worker in workers]
    assert sorted(ordinal for ordinals in taken for ordinal in ordinals) == [*range(20)]
    with database.read() as session:
        assert jobs.get(session, job.id).state == "succeeded"
        owners = [result["owner"] for result in jobs.results(session, job.id, "embed")]
    for number, ordinals in enumerate(taken):
        assert [ordinal for ordinal, owner in enumerate(owners) if owner == f"worker-{number}"] == ordinals
