"""Told to stop: what is at hand is finished or given back, within a grace.

Celery finishes the task at hand, however long that takes, and its handler of SIGTERM runs between two steps
of Python: not while a partition is inside FAISS or PyTorch. Its soft shutdown sleeps in that same thread. So
a thread of ours reads the signal (docs/adr/0024-process-lifecycle.md).
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
from collections.abc import Callable

_STOPPING = frozenset({signal.SIGTERM, signal.SIGINT})
_log = logging.getLogger(__name__)


class Stopping:
    """Knows at once that the process has been told to stop.

    Handlers ask :attr:`told` between units of work and give their partition back. If one is still at it
    ``grace_seconds`` later, ``give_back`` is called from a thread and the process ends.

    Args:
        leave: ends the process with a status, whatever its other threads do.
    """

    def __init__(
        self, grace_seconds: float, give_back: Callable[[], None], leave: Callable[[int], None] = os._exit
    ) -> None:
        self._grace_seconds = grace_seconds
        self._give_back = give_back
        self._leave = leave
        self._told = threading.Event()
        self._ended = threading.Event()

    @property
    def told(self) -> bool:
        return self._told.is_set()

    def watch(self) -> None:
        """Begin to listen; call it in the main thread. Signals do besides what they do anyhow."""
        ours, signals = socket.socketpair()
        signals.setblocking(False)
        signal.set_wakeup_fd(signals.detach(), warn_on_full_buffer=False)
        threading.Thread(target=self._listen, args=(ours,), name="stopping", daemon=True).start()

    def ended(self) -> None:
        """The process ends by itself."""
        self._ended.set()

    def begin(self) -> None:
        """Told to stop; returns when the process has ended by itself, or ends it."""
        self._told.set()
        if self._ended.wait(self._grace_seconds):
            return
        status = 1
        try:
            self._give_back()
            status = 0
        except Exception:  # noqa: BLE001  # whatever it is, the process must end now
            _log.exception("the partition at hand could not be given back; its lease will expire")
        finally:
            logging.shutdown()
            self._leave(status)

    def _listen(self, signals: socket.socket) -> None:
        while received := signals.recv(1):
            if received[0] in _STOPPING:
                self.begin()
                return
