"""Messages that leave after the commit of the transaction that wrote them, at least once."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import delete, select

from bedplate_store.database import Database, WriteSession
from bedplate_store.tables.jobs import OutboxRow
from bedplate_store.upserts import conflict_insert

WORK_TASK = "bedplate.work"
"""The task every partition is sent to; its one argument is the partition id."""

Send = Callable[[str, list[Any]], None]


def enqueue(
    session: WriteSession, task: str, argument_lists: Sequence[list[Any]], available_at: datetime
) -> None:
    """Write messages, to be sent not before ``available_at``; one that still waits is only refreshed."""
    if not argument_lists:
        return
    statement = conflict_insert(session, OutboxRow)
    # The generation tells drain that the message was asked for again while it was being sent.
    statement = statement.on_conflict_do_update(
        index_elements=["task", "args"],
        set_={
            "generation": OutboxRow.generation + 1,
            "available_at": statement.excluded.available_at,
        },
    )
    messages = [
        {"task": task, "args": json.dumps(arguments), "generation": 0, "available_at": available_at}
        for arguments in argument_lists
    ]
    session.connection().execute(statement, messages)


def drain(database: Database, send: Send, now: datetime, limit: int = 100) -> int:
    """Hand up to ``limit`` due messages to ``send(task, arguments)``, oldest first; how many were sent.

    A message is deleted only after ``send`` returned, and the broker is never called inside a transaction. A
    crash in between sends a message twice, which a lease makes harmless. What ``send`` raises is raised again
    after the messages sent before it are deleted.
    """
    with database.read() as session:
        due = session.execute(
            select(OutboxRow.id, OutboxRow.generation, OutboxRow.task, OutboxRow.args)
            .where(OutboxRow.available_at <= now)
            .order_by(OutboxRow.available_at, OutboxRow.id)
            .limit(limit)
        ).all()
    sent: list[tuple[int, int]] = []
    try:
        for message_id, generation, task, arguments in due:
            send(task, json.loads(arguments))
            sent.append((message_id, generation))
    finally:
        if sent:
            _delete(database, sent)
    return len(sent)


def _delete(database: Database, sent: Sequence[tuple[int, int]]) -> None:

    def delete_unchanged(session: WriteSession) -> None:
        # What somebody else holds is being asked for again just now: leave it.
        free = session.execute(
            select(OutboxRow.id, OutboxRow.generation)
            .where(OutboxRow.id.in_([message_id for message_id, _ in sent]))
            .with_for_update(skip_locked=True)
        ).all()
        unchanged = {(message_id, generation) for message_id, generation in free} & set(sent)
        session.execute(
            delete(OutboxRow).where(OutboxRow.id.in_([message_id for message_id, _ in unchanged]))
        )

    database.transact(delete_unchanged)
