"""Keeps a set of children running: one thread for each waits for its end and starts it again."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from bedplate_services.supervisor.children import Child, ChildFailed, ChildSpecification, RestartPolicy

Report = Callable[[str], None]


class Supervision:
    """Starts children, restarts the crashed, gives up loudly, stops all.

    Args:
        report: told in words when a child is restarted.
        changed: called with the pids by name whenever one changes.
    """

    def __init__(
        self,
        specifications: Sequence[ChildSpecification],
        *,
        environment: Mapping[str, str],
        logs: Path,
        policy: Callable[[], RestartPolicy] = RestartPolicy,
        report: Report = lambda _message: None,
        changed: Callable[[dict[str, int]], None] = lambda _pids: None,
    ) -> None:
        self._environment = environment
        self._policy = policy
        self._report = report
        self._changed = changed
        self._stopping = threading.Event()
        self._ended = threading.Event()
        self._failure: ChildFailed | None = None
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []
        # Only this process holds the writing end; the kernel closes it however this process ends.
        self._leash, self._leash_held = os.pipe()
        self.children = {
            specification.name: Child(specification, logs / f"{specification.name}.log", self._leash)
            for specification in specifications
        }

    def start(self) -> None:
        """Start every child and the threads that watch them."""
        for child in self.children.values():
            child.start(self._environment)
            thread = threading.Thread(
                target=self._keep_running,
                args=(child,),
                name=f"watch-{child.specification.name}",
                daemon=True,
            )
            self._threads.append(thread)
        self._announce()
        for thread in self._threads:
            thread.start()

    def pids(self) -> dict[str, int]:
        """Process ids of the living children, by name."""
        return {name: child.pid for name, child in self.children.items() if child.pid is not None}

    def check(self) -> None:
        """Raises ChildFailed once a child has crashed too often."""
        if self._failure is not None:
            raise self._failure

    def wait(self, timeout_seconds: float | None = None) -> bool:
        """Block until stopped or failed; False when the time ran out first.

        Raises:
            ChildFailed: a child crashed too often.
        """
        ended = self._ended.wait(timeout_seconds)
        self.check()
        return ended

    def stop(self, grace_seconds: float = 10.0) -> list[str]:
        """End every child, the last started first; the names of those that had to be killed."""
        with self._lock:
            self._stopping.set()
        children = list(reversed(self.children.values()))
        for child in children:
            child.send(signal.SIGTERM)
        deadline = time.monotonic() + grace_seconds
        killed = [child for child in children if not child.stop(deadline - time.monotonic())]
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join()
        self._close_leash()
        self._ended.set()
        return [child.specification.name for child in killed]

    def _close_leash(self) -> None:
        if self._leash_held >= 0:
            os.close(self._leash_held)
            os.close(self._leash)
            self._leash_held = -1

    def _keep_running(self, child: Child) -> None:
        policy = self._policy()
        while True:
            ending = child.wait()
            if self._stopping.is_set():
                return
            pause_seconds = policy.crashed(time.monotonic())
            if pause_seconds is None:
                self._give_up(child, ending, policy)
                return
            self._report(f"{child.specification.name} {ending}; starting it again in {pause_seconds:g} s")
            if self._stopping.wait(pause_seconds):
                return
            with self._lock:
                if self._stopping.is_set():
                    return
                child.start(self._environment)
            self._announce()

    def _announce(self) -> None:
        self._changed(self.pids())

    def _give_up(self, child: Child, ending: str, policy: RestartPolicy) -> None:
        name = child.specification.name
        self._failure = ChildFailed(
            f"{name} {ending}, {policy.crashes_max} times within {policy.window_seconds:g} s; "
            f"not started again. The end of {child.log}:\n{child.log_tail()}",
            child=name,
        )
        self._ended.set()
