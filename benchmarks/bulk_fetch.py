"""The files of a space fetched by presigned URLs of a real S3 server, as the SDK fetches them."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from tests.engines.engine import Absent
from tests.engines.s3 import S3

from bedplate.client.downloads import Wanted, fetch, file_digest
from bedplate.client.effects import Request
from bedplate.segment_files import map_file
from bedplate_store.objects import open_object_store
from benchmarks.bulk_limits import Way, by_socket, figure
from benchmarks.figures import Figure
from benchmarks.raw_reads import touch
from benchmarks.workbench import Workbench

_URL_SECONDS = 3600


def from_s3(bench: Workbench, benchmark: str, files: Sequence[Path]) -> list[Figure]:
    """MB/s against plain GETs of the same URLs; nothing where this machine has no S3 server."""
    try:
        with S3() as server, server.bucket() as bucket:
            return _figures(bench, benchmark, files, bucket, server)
    except Absent as absent:
        bench.say(f"bulk: no figures of presigned URLs ({absent})")
        return []


def _figures(
    bench: Workbench, benchmark: str, files: Sequence[Path], bucket: str, server: S3
) -> list[Figure]:
    bench.say("bulk: putting the files into an S3 server ...")
    store = open_object_store(bucket, **server.keys)
    folder = bench.folder / "s3"
    wanted, urls = [], []
    for file in files:
        store.put_file(file.name, file)
        urls.append(store.signed_url(file.name, _URL_SECONDS) or "")
        request = Request("GET", urls[-1], idempotent=True, authenticated=False)
        wanted.append(Wanted(request, folder / file.name, file.stat().st_size, file_digest(file)))

    def read() -> None:
        bench.client.runner.run(fetch(wanted))
        for each in wanted:
            touch(map_file(each.target))

    total = sum(each.bytes for each in wanted)
    what = f"{total / 1e6:,.0f} MB by presigned URL of an S3 server (fetched, verified, mapped)"
    ours = Way(what, read, lambda: shutil.rmtree(folder))
    return [
        figure(benchmark, bench.scale.rounds, total, ours, limit)
        for limit in by_socket(urls, bench.folder / "s3-limit")
    ]
