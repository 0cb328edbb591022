"""Whole spaces: streamed over REST from one state, and downloaded as the files they lie in."""

from __future__ import annotations

import tempfile
import uuid
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from bedplate.client import in_place
from bedplate.client.downloads import Progress, Wanted, fetch
from bedplate.client.effects import Give, Read, Request, Steps
from bedplate.client.requests import get, parameters, path
from bedplate.client.steps import blocking
from bedplate.client.streams import Patience, opened
from bedplate.codecs import ARROW, SCAN_COLUMNS, ScanDecoder
from bedplate.errors import InternalError, InvalidRequest, Unavailable
from bedplate.references import SpaceReference
from bedplate.space_data import DOCUMENT, FILES_READ, SpaceData, file_in
from bedplate.wire.store import SpaceFile, SpaceFiles, SpaceSegment

Shard = tuple[int, int]


def check_columns(columns: Sequence[str]) -> tuple[str, ...]:
    """Raises InvalidRequest unless they are ``key``, ``vector`` or both."""
    chosen = tuple(name for name in SCAN_COLUMNS if name in columns)
    if not chosen or len(chosen) != len(set(columns)) or isinstance(columns, str):
        raise InvalidRequest(
            f"columns is {columns!r}; give a list of {', '.join(SCAN_COLUMNS)} or one of them."
        )
    return chosen


def scan(reference: str, batch_rows: int | None, shard: Shard, columns: Sequence[str]) -> Steps[None]:
    """Give the batches of a shard of the space's state at the first answer, in order.

    A connection that breaks is taken up again behind the last whole batch, in the same state.
    """
    url, params = _url(reference), parameters(shard=shard[0], shards=shard[1], batch_rows=batch_rows)
    params["columns"] = ",".join(check_columns(columns))
    patience, done = Patience(), 0
    while True:
        request = Request("GET", url, {**params, "start_row": str(done)}, {"accept": ARROW})
        decoder = ScanDecoder()
        try:
            incoming = yield from opened(request)
            while count := (yield Read(incoming, decoder.room())):
                for batch in decoder.filled(count):
                    patience.progress()
                    done += len(batch)
                    yield Give(batch)
            if decoder.ended:
                return
            raise Unavailable("The stream of a space ended before its end; is there a proxy that cuts it?")
        except Unavailable as error:
            yield from patience.wait(error)
        if decoder.info is not None:
            # The alias may have moved, writes may have come: the rest is of the state of the first rows.
            url = _url(decoder.info.reference)
            state = parameters(snapshot=decoder.info.snapshot, sequence=decoder.info.sequence)
            params = {**params, **state}


def _url(reference: str, verb: str = "scan") -> str:
    parsed = SpaceReference.parse(reference)
    return path("spaces", str(parsed.version), parsed.space, verb)


def list_files(reference: str) -> Steps[SpaceFiles]:
    """The files of the space's newest state."""
    return get(_url(reference, "files"), SpaceFiles)


def scan_files(
    reference: str, batch_rows: int | None, shard: Shard, columns: Sequence[str], known: in_place.Known
) -> Steps[None]:
    """Give the batches of a shard, read from the files themselves."""
    chosen = check_columns(columns)
    data = yield from read(reference, known)
    for batch in data.batches(batch_rows, shard=shard, columns=chosen):
        yield Give(batch)


def read(reference: str, known: in_place.Known, progress: Progress | None = None) -> Steps[SpaceData]:
    """The space, mapped from where its files lie on this machine, else from a temporary copy; verified."""
    files = yield from list_files(reference)
    stored = [file for _, file in _needed(files)]
    if (yield from in_place.reachable(stored)):
        yield from in_place.verified(stored, known)
        places = {(segment.digest, file.name): Path(file.path or "") for segment, file in _needed(files)}
        return (yield from blocking(lambda: SpaceData(files, lambda one, name: places[one.digest, name])))
    temporary = tempfile.TemporaryDirectory(prefix="bedplate-space-")
    folder = Path(temporary.name)
    yield from _fetch(files, folder, progress)
    return (yield from blocking(lambda: SpaceData(files, partial(file_in, folder), temporary=temporary)))


def download(reference: str, directory: Path, progress: Progress | None) -> Steps[SpaceData]:
    """The space as files in ``directory``; segments that are there already are only verified."""
    files = yield from list_files(reference)
    yield from _fetch(files, directory, progress)
    yield from blocking(partial(_write_document, files, directory))
    return (yield from blocking(partial(SpaceData.open, directory)))


def _needed(files: SpaceFiles) -> list[tuple[SpaceSegment, SpaceFile]]:
    return [
        (segment, file) for segment in files.segments for file in segment.files if file.name in FILES_READ
    ]


def _fetch(files: SpaceFiles, directory: Path, progress: Progress | None) -> Steps[None]:
    for segment in files.segments:
        if not segment.digest.isalnum():
            raise InternalError(f"The platform named a segment {segment.digest!r}; that is no digest.")
    wanted = [
        # Signed: the token stays here. A relative URL is the platform's own.
        Wanted(
            Request("GET", file.url, idempotent=True, authenticated=False),
            file_in(directory, segment, file.name),
            file.bytes,
            file.sha256,
        )
        for segment, file in _needed(files)
    ]
    yield from fetch(wanted, progress)


def _write_document(files: SpaceFiles, directory: Path) -> None:
    """Last, and at once: a directory with a document is whole. Signed URLs are not for keeping."""
    kept = files.model_copy(
        update={
            "segments": [
                segment.model_copy(
                    update={
                        "files": [
                            file.model_copy(update={"url": "", "path": None})
                            for file in segment.files
                            if file.name in FILES_READ
                        ]
                    }
                )
                for segment in files.segments
            ]
        }
    )
    directory.mkdir(parents=True, exist_ok=True)
    written = directory / f".{DOCUMENT}.{uuid.uuid4().hex}"
    written.write_text(kept.model_dump_json(indent=1))
    written.replace(directory / DOCUMENT)
