"""The end of a serving process: nobody is sent away, and nobody comes any more.

docs/adr/0024-process-lifecycle.md says how Kubernetes and it work together.
"""

from __future__ import annotations


class Draining:
    """Set once, when the process is told to stop. Requests are answered as before, and each answer closes its
    connection, so that the next request goes to another process; ``/readyz`` says no.
    """

    def __init__(self) -> None:
        self.begun = False

    def begin(self) -> None:
        self.begun = True
