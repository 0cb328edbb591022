"""kill -9 of a process that takes in events and outcomes: all it acknowledged is there, in whole batches."""

from __future__ import annotations

import subprocess
import sys

from sqlalchemy import func, select

from bedplate_store.database import Database
from bedplate_store.tables.records import EventRow, OutcomeRow

_SERVER = """
import sys
from datetime import UTC, datetime, timedelta
from bedplate.wire.store import Event, Outcome
from bedplate_store import events, outcomes
from bedplate_store.database import Database

database, now = Database(sys.argv[1]), datetime.now(UTC)
for number in range(1_000_000):
    at = now - timedelta(days=1) + timedelta(milliseconds=number)
    batch = [Event(user=f"u{row}", item=f"i{number}", action="like", surface="feed", event_time=at)
             for row in range(20)]
    told = [Outcome(request_id=f"r{number}", item=f"i{row}", label=1.0, outcome_time=at) for row in range(20)]
    with database.write() as session:
        events.ingest(session, events.EventColumns.from_wire(batch), now=now)
    with database.write() as session:
        outcomes.record(session, "feed", told, now=now)
    print(number, flush=True)
"""


def test_acknowledged_events_and_outcomes_survive_a_kill(database: Database) -> None:
    url = database.engine.url.render_as_string(hide_password=False)
    server = subprocess.Popen([sys.executable, "-c", _SERVER, url], stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    for line in server.stdout:
        if line == "20\n":
            break
    server.kill()
    said = [line for line in server.stdout if line.endswith("\n")]  # before it died
    server.wait()
    server.stdout.close()
    acknowledged = int(said[-1]) if said else 20
    with database.read() as session:
        kept = [
            session.execute(select(column, func.count()).group_by(column)).all()
            for column in (EventRow.item, OutcomeRow.request_id)
        ]
    for batches, letter in zip(kept, "ir", strict=True):
        assert {count for _, count in batches} == {20}, "a batch is taken whole or not at all"
        names = {name for name, _ in batches}
        assert {f"{letter}{number}" for number in range(acknowledged + 1)} <= names
        assert len(names) <= acknowledged + 2, "one more may have been written and not acknowledged"
