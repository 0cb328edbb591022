"""A whole space read by an expert team: streamed, fetched, mapped; against a raw read of the same files."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from bedplate import Client, SpaceData
from bedplate.codecs import ScanBatch
from bedplate.errors import InternalError
from benchmarks import bulk_fetch
from benchmarks.bulk_limits import Way, by_socket, figure, in_place, looped_back
from benchmarks.figures import Figure
from benchmarks.raw_reads import touch
from benchmarks.vectors import gapped_keys, random_vectors
from benchmarks.workbench import LOOKUP_DIM, REFERENCE, Workbench

NAME = "bulk"
SPACE = f"{REFERENCE}/bulk"


def run(bench: Workbench) -> list[Figure]:
    """Bytes of keys and vectors read a second, every vector byte touched."""
    rows = bench.scale.rows
    bench.say(f"bulk: publishing {rows:,} x {LOOKUP_DIM} float32 ...")
    bench.publish("bulk", gapped_keys(rows), random_vectors(rows, LOOKUP_DIM), None)
    listed = [
        file
        for file in bench.client.spaces.files(SPACE).segments[0].files
        if file.name in ("keys", "vectors")
    ]
    files = [Path(file.path or "") for file in listed]
    reads = _Reads(bench, rows, sum(file.bytes for file in listed))
    raw, digested = in_place(files)
    folder = bench.folder / "bulk"
    fetched = (raw, digested, *by_socket([file.url for file in listed], bench.folder / "bulk-limit"))
    bench.client.spaces.download(SPACE, folder / "kept")
    with looped_back(files) as sent:
        streamed = reads.figures("Arrow stream over REST", lambda: bench.client.spaces.scan(SPACE), raw, sent)
    return [
        *streamed,
        *reads.figures("files in place (first read: verified, mapped)", _new_client(bench), raw, digested),
        *reads.figures("files in place (mapped)", lambda: bench.client.spaces.scan(SPACE, via="files"), raw),
        *reads.figures(
            "files by signed URL (fetched, verified, mapped)",
            lambda: bench.client.spaces.download(SPACE, folder / "new").batches(),
            *fetched,
            after=lambda: shutil.rmtree(folder / "new"),
        ),
        *reads.figures("further read (mapped)", lambda: SpaceData.open(folder / "kept").batches(), raw),
        *bulk_fetch.from_s3(bench, NAME, files),
    ]


def _new_client(bench: Workbench) -> Callable[[], Iterable[ScanBatch]]:
    """A client that has verified nothing yet."""

    def batches() -> Iterator[ScanBatch]:
        with Client(bench.platform.url, bench.platform.token) as client:
            yield from client.spaces.scan(SPACE, via="files")

    return batches


class _Reads:
    """The figures of one space."""

    def __init__(self, bench: Workbench, rows: int, total: int) -> None:
        self._bench, self._rows, self._total = bench, rows, total

    def figures(
        self,
        title: str,
        batches: Callable[[], Iterable[ScanBatch]],
        *limits: Way,
        after: Callable[[], None] = lambda: None,
    ) -> list[Figure]:
        """One way to read the space, against each limit; ``after`` a read is not timed."""
        what = f"{self._rows:,} x {LOOKUP_DIM} float32, {title}"
        ours = Way(what, lambda: self._touched(batches()), after)
        return [figure(NAME, self._bench.scale.rounds, self._total, ours, limit) for limit in limits]

    def _touched(self, batches: Iterable[ScanBatch]) -> None:
        rows = 0
        for batch in batches:
            touch(batch.vectors)
            rows += len(batch)
        if rows != self._rows:
            raise InternalError(f"{rows} rows were read of {self._rows}")
