"""Files fetched, several at a time, and verified: each appears under its name whole, or not at all.

What has come of a file lies beside it, named by the digest it shall have; who fetches it again after a
broken connection or a killed process asks for the rest only.
"""

from __future__ import annotations

import hashlib
import os
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import BinaryIO

import httpx

from bedplate.client.effects import Request, Save, Steps, Together
from bedplate.client.steps import blocking, retried
from bedplate.errors import DigestMismatch, Unavailable

try:
    import fcntl as _fcntl
except ImportError:  # Windows: every download is its own, and none goes on where another one stopped
    _locks: ModuleType | None = None
else:
    _locks = _fcntl

Progress = Callable[[str, int, int], None]
"""Called with (file name, bytes done of all files, bytes of all files)."""

_BLOCK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Wanted:
    """A file to be fetched.

    Attributes:
        request: a GET of its bytes.
        target: the name it gets.
    """

    request: Request
    target: Path
    bytes: int
    sha256: str


def file_digest(file: Path) -> str:
    """SHA-256 of a file, read in chunks, as 64 hexadecimal digits."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def fetch(files: Sequence[Wanted], progress: Progress | None = None) -> Steps[None]:
    """Fetch the files that are not there yet, some at the same time; those there are verified.

    Raises:
        DigestMismatch: the bytes that came are not those announced.
    """
    told = _Told(progress, sum(file.bytes for file in files))
    yield Together([_fetch(file, told) for file in files])


class _Told:
    """Adds up the bytes of all files; a file is never more than whole, however often it is begun."""

    def __init__(self, progress: Progress | None, total: int) -> None:
        self._progress, self._total = progress, total
        self._done: dict[Path, int] = {}

    def __call__(self, file: Wanted, done: int) -> None:
        self._done[file.target] = min(done, file.bytes)
        if self._progress:
            self._progress(file.target.name, sum(self._done.values()), self._total)


def _fetch(file: Wanted, told: _Told) -> Steps[None]:
    if (yield from blocking(partial(_is_there, file))):
        told(file, file.bytes)
        return
    incoming = yield from blocking(lambda: PartialFile(file, told))
    try:
        if not (yield from _whole(file, incoming)) and incoming.resumed:
            # A power cut may have left other bytes than were written: once more, from the beginning.
            incoming.restart()
            yield from _whole(file, incoming)
        yield from blocking(incoming.finish)
    finally:
        incoming.close()


def _is_there(file: Wanted) -> bool:
    target = file.target
    return target.is_file() and target.stat().st_size == file.bytes and file_digest(target) == file.sha256


def _whole(file: Wanted, incoming: PartialFile) -> Steps[bool]:
    """Fetch what is missing; whether the digest is right."""
    while incoming.bytes < file.bytes or file.bytes == 0:
        before = incoming.bytes

        def attempt() -> Steps[httpx.Response]:
            headers = {**file.request.headers, "accept-encoding": "identity"}
            if incoming.bytes:
                headers["range"] = f"bytes={incoming.bytes}-"
            response: httpx.Response = yield Save(replace(file.request, headers=headers), incoming)
            return response

        try:
            yield from retried(file.request, attempt)
        except Unavailable:
            if incoming.bytes == before:
                raise
        else:
            break
    return (yield from blocking(incoming.is_right))


class PartialFile:
    """What has come of a file, digested on the way; one process at a time goes on with it, others begin anew.

    Attributes:
        bytes: how many have come.
        resumed: whether some came in an earlier call or process.
    """

    def __init__(self, file: Wanted, told: Callable[[Wanted, int], None]) -> None:
        self._wanted = file
        self._told = told
        file.target.parent.mkdir(parents=True, exist_ok=True)
        shared = file.target.with_name(f".{file.target.name}.{file.sha256[:16]}.partial")
        own = shared.with_name(f"{shared.name}.{uuid.uuid4().hex}")
        stream = _locked(shared)
        self._path, self._stream = (own, _opened(own)) if stream is None else (shared, stream)
        self._resumable = stream is not None
        self._digest = hashlib.sha256()
        self._thread = ThreadPoolExecutor(1, "bedplate-digest")
        self._digesting: Future[None] | None = None
        self._block, self._other = memoryview(bytearray(_BLOCK_BYTES)), memoryview(bytearray(_BLOCK_BYTES))
        self._filled = 0
        self.bytes = 0
        self._take_over()
        self.resumed = self.bytes > 0

    def _take_over(self) -> None:
        while self.bytes < self._wanted.bytes and (block := self._stream.read(_BLOCK_BYTES)):
            self._digest.update(block)
            self.bytes += len(block)

    def begin(self, response: httpx.Response) -> None:
        """A server that does not know ranges sends the whole file again."""
        begins = response.headers.get("content-range", "").startswith(f"bytes {self.bytes}-")
        if self.bytes and not (response.status_code == 206 and begins):
            self.restart()

    def restart(self) -> None:
        """Forget what has come."""
        self._settle()
        self._filled = 0
        self._stream.seek(0)
        self._stream.truncate()
        self._digest = hashlib.sha256()
        self.bytes = 0

    def room(self) -> memoryview:
        return self._block[self._filled :]

    def filled(self, count: int) -> None:
        self._filled += count
        self.bytes += count
        if self._filled == _BLOCK_BYTES:
            self._flush()
            self._told(self._wanted, self.bytes)

    def is_right(self) -> bool:
        """Whether all bytes have come and are those announced."""
        self._flush()
        self._settle()
        return self._digest.hexdigest() == self._wanted.sha256

    def finish(self) -> None:
        """Give the file its name. Raises DigestMismatch, and what came is removed."""
        if not self.is_right():
            self._path.unlink(missing_ok=True)
            raise DigestMismatch(
                f"{self._wanted.target.name} came with SHA-256 {self._digest.hexdigest()}, announced was "
                f"{self._wanted.sha256}; fetch it again, and if that does not help, the stored object is "
                "damaged.",
                file=self._wanted.target.name,
            )
        self._stream.flush()
        self._path.replace(self._wanted.target)
        self._told(self._wanted, self._wanted.bytes)

    def close(self) -> None:
        """Keep what has come, if somebody can go on with it."""
        self._flush()
        self._settle()
        self._thread.shutdown()
        self._stream.close()
        if not self._resumable:
            self._path.unlink(missing_ok=True)

    def _flush(self) -> None:
        if not self._filled:
            return
        self._settle()
        block, self._filled = self._block[: self._filled], 0
        self._block, self._other = self._other, self._block
        # Digested by a thread while the next block comes: hashlib lets other threads run.
        self._digesting = self._thread.submit(self._digest.update, block)
        self._stream.write(block)

    def _settle(self) -> None:
        """Wait until the block before has been digested; then its memory is free."""
        if self._digesting is not None:
            self._digesting.result()
            self._digesting = None


def _opened(path: Path) -> BinaryIO:
    return os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o666), "rb+")


def _locked(path: Path) -> BinaryIO | None:
    """The file, for this process alone; None where another one has it."""
    if _locks is None:
        return None
    while True:
        stream = _opened(path)
        try:
            _locks.flock(stream, _locks.LOCK_EX | _locks.LOCK_NB)
        except BlockingIOError:
            stream.close()
            return None
        # Whoever had it may have given it its name meanwhile: then this is the finished file.
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(stream.fileno()), path.stat()):
                return stream
        stream.close()
