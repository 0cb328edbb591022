"""A client that keeps reading by alias while the alias moves, and remembers whatever went wrong."""

from __future__ import annotations

import threading
from collections import Counter
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from bedplate import Client
from bedplate.errors import BedplateError, Unavailable


class AliasReader:
    """Looks the same keys up through ``core@production/item`` in a thread, while the ``with`` block runs.

    Attributes:
        answers: version reference -> number of answers that named it.
        failures: in words, requests that failed, and answers whose vectors were not those of the version they
            named.
    """

    def __init__(
        self, client: Client, reference: str, expected: dict[str, NDArray[np.floating]], keys: list[str]
    ):
        self.client, self.reference, self.expected, self.keys = client, reference, expected, keys
        self.answers: Counter[str] = Counter()
        self.failures: list[str] = []
        self._stop = threading.Event()
        self._answered = threading.Condition()
        self._thread = threading.Thread(target=self._read, name="alias-reader", daemon=True)

    def __enter__(self) -> AliasReader:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    def wait_for(self, version: str, answers: int, timeout_seconds: float = 60.0) -> None:
        """Wait until that many further answers came from ``version``.

        Raises:
            Unavailable: they did not come in time.
        """
        with self._answered:
            wanted = self.answers[version] + answers
            if not self._answered.wait_for(lambda: self.answers[version] >= wanted, timeout_seconds):
                raise Unavailable(
                    f"{self.reference} did not answer from {version} within {timeout_seconds:g} s"
                )

    def _read(self) -> None:
        while not self._stop.is_set():
            try:
                answer = self.client.spaces.lookup(self.reference, self.keys)
            except BedplateError as error:
                self.failures.append(f"{error.code}: {error.detail}")
                continue
            with self._answered:
                self.answers[answer.version] += 1
                self._answered.notify_all()
            expected = self.expected.get(answer.version)
            if expected is None or not np.array_equal(answer.vectors, expected):
                self.failures.append(f"an answer named {answer.version} but held other vectors")
