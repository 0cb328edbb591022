"""What a process takes of memory, as Linux tells it."""

from __future__ import annotations

import threading
from pathlib import Path
from types import TracebackType
from typing import Self

_SAMPLE_SECONDS = 0.02


def resident_bytes(process: int | str = "self") -> dict[str, int]:
    """Of a process, by its id: ``anonymous`` memory, which is its own, and ``mapped`` pages of files, which
    the page cache shares with every other process and takes back under pressure.
    """
    fields = dict(
        line.split(":", 1) for line in Path(f"/proc/{process}/status").read_text().splitlines() if ":" in line
    )

    def of(name: str) -> int:
        return int(fields[name].split()[0]) * 1024

    return {"anonymous": of("RssAnon"), "mapped": of("RssFile") + of("RssShmem")}


class PeakAnonymous:
    """``bytes``: the most anonymous memory of this process within the block, above what it had before."""

    def __init__(self) -> None:
        self.bytes = 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Self:
        self._before = resident_bytes()["anonymous"]
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()
        self._look()

    def _watch(self) -> None:
        while not self._ended.wait(_SAMPLE_SECONDS):
            self._look()

    def _look(self) -> None:
        self.bytes = max(self.bytes, resident_bytes()["anonymous"] - self._before)
