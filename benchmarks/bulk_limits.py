"""What reading whole files costs without us: from the page cache, over TCP, by plain GETs."""

from __future__ import annotations

import hashlib
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from benchmarks.figures import Figure, Sample, interleave
from benchmarks.raw_reads import get, receive, scan


@dataclass(frozen=True)
class Way:
    """One way to read the same bytes; ``after`` tidies up and is not timed."""

    name: str
    read: Callable[[], None]
    after: Callable[[], None] = lambda: None


def figure(benchmark: str, rounds: int, total: int, ours: Way, limit: Way) -> Figure:
    """MB/s of both, in turns, of ``total`` bytes."""
    pairs = interleave(rounds, partial(_sample, ours, total), partial(_sample, limit, total))
    return pairs.figure(benchmark, ours.name, "MB/s", limit.name, {"bytes": float(total)})


def _sample(way: Way, total: int, _: int) -> Sample:
    began = time.perf_counter()
    way.read()
    seconds = time.perf_counter() - began
    way.after()
    return Sample.of(total / 1e6, seconds)


def in_place(files: Sequence[Path]) -> tuple[Way, Way]:
    """The files read where they lie; and digested as well."""

    def raw() -> None:
        for file in files:
            scan(file)

    def digested() -> None:
        threads = [threading.Thread(target=_digested, args=(file,)) for file in files]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    return (
        Way("raw read of the same files", raw),
        Way("raw read + SHA-256, one thread a file", digested),
    )


def _digested(file: Path) -> None:
    digest = hashlib.sha256()
    scan(file, digest.update)


def by_socket(urls: Sequence[str], folder: Path) -> tuple[Way, Way, Way]:
    """The bodies of plain GETs of the URLs, one after the other; digested; and written into ``folder``."""

    def received() -> None:
        for url in urls:
            get(url)

    def digested() -> None:
        for url in urls:
            get(url, hashlib.sha256().update)

    def written() -> None:
        folder.mkdir()
        for number, url in enumerate(urls):
            _fetched(url, folder / str(number))

    plain = "plain GET of the same URLs"
    return (
        Way(plain, received),
        Way(f"{plain} + SHA-256", digested),
        Way(f"{plain} + SHA-256 + write", written, lambda: shutil.rmtree(folder)),
    )


def _fetched(url: str, path: Path) -> None:
    digest = hashlib.sha256()
    with open(path, "wb", buffering=0) as file:
        get(url, lambda piece: (digest.update(piece), file.write(piece)))


@contextmanager
def looped_back(files: Sequence[Path]) -> Iterator[Way]:
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
            with socket.create_connection(server.getsockname()) as connection:
                receive(connection)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield Way("sendfile over loopback TCP", read)
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join()
