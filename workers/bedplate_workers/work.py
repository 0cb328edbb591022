"""The task ``bedplate.work``: claim a partition, do it, commit it under the fencing token."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Literal

import structlog

from bedplate.errors import BedplateError, InternalError, LeaseLost
from bedplate_store import leases
from bedplate_store.leases import Claim
from bedplate_store.tracing import UNTRACED, Tracing
from bedplate_workers.handlers import Finish, Handlers, Workplace
from bedplate_workers.heartbeats import Heartbeat, Interrupted
from bedplate_workers.logging import get_logger
from bedplate_workers.metrics import NullWorkMetrics, WorkMetrics

Ending = Literal["not_due", "done", "lease_lost", "interrupted", "failed", "buried"]
"""``failed``: it is tried again; ``buried``: it failed its job."""
_FAILURES = ("failed", "buried")
_log = get_logger(__name__)


class Worker:
    """Does one partition at a time; a lost, repeated or late message changes nothing but time.

    Args:
        owner: names this process in the ledger.
        stopping: whether the process has been told to stop; asked between units of work.
        after_work: called after each partition, however it ended.
        tracing: told what the span of the message is about.
    """

    def __init__(
        self,
        workplace: Workplace,
        handlers: Handlers,
        *,
        owner: str,
        lease_seconds: float,
        stopping: Callable[[], bool] = lambda: False,
        after_work: Callable[[], None] = lambda: None,
        metrics: WorkMetrics | None = None,
        tracing: Tracing = UNTRACED,
    ) -> None:
        self._workplace = workplace
        self._handlers = handlers
        self._owner = owner
        self._lease_seconds = lease_seconds
        self._stopping = stopping
        self._after_work = after_work
        self._at_hand: Claim | None = None
        self._metrics = metrics or NullWorkMetrics()
        self._tracing = tracing

    def work(self, partition_id: str) -> Ending:
        """Do the partition if it is due; how that ended. The handler's errors go to the ledger."""
        place = self._workplace
        claim = leases.claim(place.store, partition_id, self._owner, self._lease_seconds, place.now())
        if claim is None:
            return "not_due"
        names = _names(claim)
        self._tracing.note(names)
        with structlog.contextvars.bound_contextvars(**names):
            self._metrics.begun()
            started = time.perf_counter()
            ending = self._do(claim)
            seconds = time.perf_counter() - started
            self._metrics.ended(claim, ending, seconds)
            self._tracing.note({"ending": ending}, failed=ending in _FAILURES)
            _log.info("worked", ending=ending, seconds=round(seconds, 3))
        self._after_work()
        return ending

    def give_back(self) -> None:
        """Give back the partition at hand, if there is one; what is done for it meanwhile cannot be committed
        any more. Called by another thread of a process that is about to end.
        """
        claim = self._at_hand
        if claim is not None:
            ending = self._give_back(claim)
            _log.info("given back unfinished", ending=ending, job=claim.job_id, partition=claim.ordinal)

    def _do(self, claim: Claim) -> Ending:
        self._at_hand = claim
        try:
            self._commit(claim, self._handle(claim))
        except LeaseLost:
            return "lease_lost"
        except Interrupted:
            return self._give_back(claim)
        except Exception as error:  # noqa: BLE001  # whatever it is, the ledger must know why the partition failed
            return self._fail(claim, error)
        finally:
            self._at_hand = None
        return "done"

    def _give_back(self, claim: Claim) -> Ending:
        try:
            leases.release(self._workplace.store, claim, self._workplace.now())
        except LeaseLost:
            return "lease_lost"
        return "interrupted"

    def _fail(self, claim: Claim, error: Exception) -> Ending:
        _log.warning("the partition failed", exc_info=error)
        try:
            buried = leases.fail(self._workplace.store, claim, _reason(error), self._workplace.now())
        except LeaseLost:
            return "lease_lost"
        return "buried" if buried else "failed"

    def _handle(self, claim: Claim) -> Finish:
        handler = self._handlers.get((claim.kind, claim.stage))
        if handler is None:
            raise InternalError(
                f"No worker handles stage {claim.stage!r} of {claim.kind!r} jobs; "
                "workers and services must be of the same release."
            )
        heartbeat = Heartbeat(
            self._workplace.store,
            claim,
            lease_seconds=self._lease_seconds,
            now=self._workplace.now,
            stopping=self._stopping,
        )
        with heartbeat:
            return handler(self._workplace, claim, heartbeat)

    def _commit(self, claim: Claim, finish: Finish) -> None:
        self._workplace.store.transact(
            lambda session: leases.commit(session, claim, finish(session), self._workplace.now())
        )


def _names(claim: Claim) -> dict[str, Any]:
    """What every line of the log says about the work it was written for."""
    names = {
        "job": claim.job_id,
        "kind": claim.kind,
        "stage": claim.stage,
        "partition": claim.ordinal,
        "attempt": claim.attempt,
        "team": claim.team,
        "subject": claim.subject,
    }
    version, at, space = claim.subject.partition("/")
    if at:  # the subject is a space, which the API's lines name by these two
        names |= {"version": version, "space": space}
    request_id = claim.origin.get("request_id")
    return names if request_id is None else {**names, "request_id": request_id}


def _reason(error: Exception) -> str:
    if isinstance(error, BedplateError):
        return f"{error.title}: {error.detail}"
    return f"{type(error).__name__}: {error}"
