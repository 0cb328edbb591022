"""How often, how long and how loudly a remote object store is asked again: the one place that retries it.

An adapter raises :class:`Fault` for what may pass: no connection, no answer in time, a 5xx, half a body,
bytes that do not have their digest. Everything else (no such object, wrong credentials, a full disk here) is
told at once.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeVar

from bedplate.errors import BedplateError

logger = logging.getLogger(__name__)

ResultT = TypeVar("ResultT")
FaultReason = Literal["unreachable", "timeout", "server_error", "cut", "slow", "digest"]
Ending = Literal["retried", "gave_up"]
OnFault = Callable[[str, FaultReason, Ending], None]
"""Called with (operation, reason, ending) at every fault; services count them."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How much a remote object store may try us.

    Attributes:
        connect_seconds: to connect, and to send one request or one part of 5 MiB.
        read_seconds: until the next bytes of an answer.
        least_bytes_per_second: an answer that after ``read_seconds`` comes slower than this is given up.
        attempts: calls in all, the first included; None: as many as ``deadline_seconds`` leaves time for.
        first_wait_seconds: before the second attempt; doubled for each further one, less up to a half, so
            that many readers do not come back at once.
        longest_wait_seconds: no wait is longer.
        deadline_seconds: no attempt begins later than this after the first one failed.
    """

    connect_seconds: float = 5.0
    read_seconds: float = 20.0
    least_bytes_per_second: float = 64 * 1024
    attempts: int | None = 5
    first_wait_seconds: float = 0.2
    longest_wait_seconds: float = 5.0
    deadline_seconds: float = 60.0

    def wait_seconds(self, failed: int, failing_seconds: float, chance: float) -> float | None:
        """How long to wait after ``failed`` attempts, ``failing_seconds`` since the first of them ended.

        ``chance`` is in [0, 1). None: enough is enough.
        """
        longest = min(self.longest_wait_seconds, self.first_wait_seconds * 2.0 ** (failed - 1))
        wait = longest * (1 - chance / 2)
        exhausted = self.attempts is not None and failed >= self.attempts
        return None if exhausted or failing_seconds + wait > self.deadline_seconds else wait

    def allows(self, read_bytes: int, elapsed_seconds: float) -> bool:
        """Whether an answer that has brought ``read_bytes`` after ``elapsed_seconds`` is fast enough."""
        return elapsed_seconds <= self.read_seconds + read_bytes / self.least_bytes_per_second


class Fault(Exception):
    """A failed attempt that is worth another one; ``error`` is what the caller is told if none succeeds."""

    def __init__(self, reason: FaultReason, error: BedplateError) -> None:
        super().__init__(reason)
        self.reason: FaultReason = reason
        self.error = error


def uncounted(_operation: str, _reason: FaultReason, _ending: Ending) -> None:
    """The observer of faults where nobody counts; they are logged all the same."""


class Retries:
    """Calls again what failed with a :class:`Fault`, as long as ``patience`` lasts; each fault is logged."""

    def __init__(
        self,
        patience: Patience,
        on_fault: OnFault = uncounted,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self.patience = patience
        self.clock = clock
        self._on_fault = on_fault
        self._sleep = sleep
        self._chance = chance

    def run(self, operation: str, key: str, call: Callable[[], ResultT]) -> ResultT:
        """The result of ``call``, or the error of its last :class:`Fault`."""
        failed, failing_since = 0, 0.0
        while True:
            try:
                return call()
            except Fault as fault:
                failed += 1
                now = self.clock()
                failing_since = now if failed == 1 else failing_since
                wait = self.patience.wait_seconds(failed, now - failing_since, self._chance())
                self._tell(operation, key, fault, failed, wait)
                if wait is None:
                    raise fault.error from fault
            self._sleep(wait)

    def _tell(self, operation: str, key: str, fault: Fault, failed: int, wait: float | None) -> None:
        ending: Ending = "gave_up" if wait is None else "retried"
        self._on_fault(operation, fault.reason, ending)
        told = "giving up" if wait is None else f"trying again in {wait:.2f} s"
        cause = fault.__cause__
        logger.warning(
            "object store: %s of %r failed (%s%s), attempt %d of %s; %s",
            operation,
            key,
            fault.reason,
            f": {cause!r}" if cause is not None else "",
            failed,
            self.patience.attempts or "as many as it takes",
            told,
        )
