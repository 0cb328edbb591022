"""A whole space read by an expert team: streamed, fetched, mapped; against a raw read of the same files."""

from __future__ import annotations

import hashlib
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from bedplate import Client, SpaceData
from bedplate.codecs import ScanBatch
from bedplate.errors import InternalError
from benchmarks.figures import Figure, Sample, interleave
from benchmarks.raw_reads import scan, touch
from benchmarks.vectors import gapped_keys, random_vectors
from benchmarks.workbench import LOOKUP_DIM, REFERENCE, Workbench

NAME = "bulk"
SPACE = f"{REFERENCE}/bulk"
_PIECE_BYTES = 1 << 20


def run(bench: Workbench) -> list[Figure]:
    """Bytes of keys and vectors read a second, every vector byte touched."""
    rows = bench.scale.rows
    bench.say(f"bulk: publishing {rows:,} x {LOOKUP_DIM} float32 ...")
    bench.publish("bulk", gapped_keys(rows), random_vectors(rows, LOOKUP_DIM), None)
    segment = bench.client.spaces.files(SPACE).segments[0]
    files = [Path(file.path or "") for file in segment.files if file.name in ("keys", "vectors")]
    total = sum(file.stat().st_size for file in files)
    folder = bench.folder / "bulk"
    bench.client.spaces.download(SPACE, folder / "kept")
    read = _Reads(bench, rows, files, total)

    def fetched(number: int) -> Iterable[ScanBatch]:
        target = folder / str(number)
        try:
            yield from bench.client.spaces.download(SPACE, target).batches()
        finally:
            shutil.rmtree(target, ignore_errors=True)

    with _loopback(files) as sent:
        return [
            read.figure("Arrow stream over REST", lambda _: bench.client.spaces.scan(SPACE), raw=True),
            read.figure("Arrow stream over REST", lambda _: bench.client.spaces.scan(SPACE), sent=sent),
            read.figure("files in place (first read: verified, mapped)", _new_client(bench), raw=True),
            read.figure("files in place (first read: verified, mapped)", _new_client(bench), digested=True),
            read.figure("files in place (mapped)", _in_place(bench), raw=True),
            read.figure("files by signed URL (fetched, verified, mapped)", fetched, raw=True),
            read.figure("files by signed URL (fetched, verified, mapped)", fetched, digested=True),
            read.figure(
                "further read (mapped)", lambda _: SpaceData.open(folder / "kept").batches(), raw=True
            ),
        ]


def _new_client(bench: Workbench) -> Callable[[int], Iterable[ScanBatch]]:
    """A client that has verified nothing yet."""

    def batches(_: int) -> Iterator[ScanBatch]:
        with Client(bench.platform.url, bench.platform.token) as client:
            yield from client.spaces.scan(SPACE, via="files")

    return batches


def _in_place(bench: Workbench) -> Callable[[int], Iterable[ScanBatch]]:
    return lambda _: bench.client.spaces.scan(SPACE, via="files")


class _Reads:
    """The figures of one space."""

    def __init__(self, bench: Workbench, rows: int, files: list[Path], total: int) -> None:
        self._bench, self._rows, self._files, self._total = bench, rows, files, total

    def figure(
        self,
        title: str,
        batches: Callable[[int], Iterable[ScanBatch]],
        *,
        raw: bool = False,
        digested: bool = False,
        sent: Callable[[], None] | None = None,
    ) -> Figure:
        """One way to read the space, against one limit."""

        def product(number: int) -> Sample:
            return self._timed(lambda: self._touched(batches(number)))

        def limit(_: int) -> Sample:
            return self._timed(sent or (lambda: self._raw(digested)))

        if raw:
            name = "raw read of the same files"
        else:
            name = "raw read + SHA-256, one thread a file" if digested else "sendfile over loopback TCP"
        pairs = interleave(self._bench.scale.rounds, product, limit)
        what = f"{self._rows:,} x {LOOKUP_DIM} float32, {title}"
        return pairs.figure(NAME, what, "MB/s", name, {"bytes": float(self._total)})

    def _timed(self, read: Callable[[], None]) -> Sample:
        began = time.perf_counter()
        read()
        return Sample.of(self._total / 1e6, time.perf_counter() - began)

    def _touched(self, batches: Iterable[ScanBatch]) -> None:
        rows = 0
        for batch in batches:
            touch(batch.vectors)
            rows += len(batch)
        if rows != self._rows:
            raise InternalError(f"{rows} rows were read of {self._rows}")

    def _raw(self, digested: bool) -> None:
        if not digested:
            for file in self._files:
                scan(file)
            return
        threads = [threading.Thread(target=_digested, args=(file,)) for file in self._files]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()


def _digested(file: Path) -> None:
    digest = hashlib.sha256()
    scan(file, digest.update)


@contextmanager
def _loopback(files: list[Path]) -> Iterator[Callable[[], None]]:
    """The same files sent by the kernel and read in pieces through one buffer: what TCP alone costs here."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection:
                    for file in files:
                        with open(file, "rb") as source:
                            connection.sendfile(source)

        def read() -> None:
            buffer: np.ndarray[Any, np.dtype[np.uint8]] = np.empty(_PIECE_BYTES, np.uint8)
            with socket.create_connection(server.getsockname()) as connection:
                while count := connection.recv_into(buffer.data):
                    touch(buffer[: count - count % 8])

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield read
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join()
