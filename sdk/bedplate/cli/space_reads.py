"""``bedplate spaces scan`` and ``bedplate spaces download``."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal, cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import typer

from bedplate.cli.options import AsJson, client_of
from bedplate.cli.output import print_json, row_bar, say, transfer_bar
from bedplate.codecs import SCAN_COLUMNS, ScanBatch, ScanInfo, VectorDtype, scan_batch_to_arrow, scan_schema
from bedplate.errors import InvalidRequest
from bedplate.stored_vectors import Storage
from bedplate.wire.store import Space

_Write = Callable[[ScanBatch], None]


def scan(
    context: typer.Context,
    reference: str,
    output: Annotated[
        Path,
        typer.Option(help="FILE.parquet, .arrow, or .npy (vectors; the keys in FILE.keys.npy)."),
    ],
    shard: Annotated[str, typer.Option(metavar="I/N", help="The I-th of N equal parts, from 0.")] = "0/1",
    batch_rows: Annotated[int | None, typer.Option(min=1, help="Rows read at a time.")] = None,
    via: Annotated[str, typer.Option(help="rest, or files: straight from where they are stored.")] = "rest",
    json: AsJson = False,
) -> None:
    """Read all vectors of a space into one file; an older one is replaced when all rows have come."""
    if via not in ("rest", "files"):
        raise InvalidRequest("--via is one of rest, files.")
    route = cast(Literal["rest", "files"], via)
    client = client_of(context)
    batches = client.spaces.scan(reference, batch_rows=batch_rows, shard=_shard(shard), via=route)
    space = client.spaces.get(reference)
    first = next(batches, None)
    info = first.info if first else ScanInfo(space.reference, space.snapshot or 0, 0, 0, 0)
    done = 0
    with _writing(output, space, info) as write, row_bar(reference) as advance:
        while first is not None:
            write(first)
            done += len(first)
            advance(done, info.rows)
            first = next(batches, None)
    summary = {"reference": info.reference, "snapshot": info.snapshot, "sequence": info.sequence}
    _tell({**summary, "rows": done, "output": str(output)}, as_json=json)


def download(context: typer.Context, reference: str, directory: Path, json: AsJson = False) -> None:
    """Fetch a space's files, verified; asked again after a break, it fetches what is missing.

    In Python, bedplate.SpaceData.open(DIRECTORY) maps them.
    """
    client = client_of(context)
    with transfer_bar(reference) as progress:
        data = client.spaces.download(reference, directory, progress=progress)
    info = data.info
    summary = {"reference": info.reference, "snapshot": info.snapshot, "sequence": info.sequence}
    _tell({**summary, "rows": info.rows, "output": str(directory)}, as_json=json)


def _shard(text: str) -> tuple[int, int]:
    number, _, count = text.partition("/")
    if not (number.isdigit() and count.isdigit()):
        raise InvalidRequest(f"--shard is {text!r}; write it as 0/4: the first of four.")
    return int(number), int(count)


def _tell(summary: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(summary)
        return
    say(
        f"{summary['reference']}, snapshot {summary['snapshot']}, sequence {summary['sequence']}: "
        f"{summary['rows']:,} rows in {summary['output']}"
    )


@contextmanager
def _writing(output: Path, space: Space, info: ScanInfo) -> Iterator[_Write]:
    """What takes the batches; the file appears under its name when all have come."""
    makers = {".parquet": _parquet, ".arrow": _arrow, ".npy": _npy}
    maker = makers.get(output.suffix)
    if maker is None:
        raise InvalidRequest(f"--output is {output}; its name ends with one of {', '.join(makers)}.")
    if maker is _npy and space.key_type != "int64":
        raise InvalidRequest("A .npy file cannot hold the string keys; write .parquet or .arrow.")
    made = {output: output.with_name(f".{output.name}.{uuid.uuid4().hex}")}
    if maker is _npy:
        keys = output.with_suffix(".keys.npy")
        made[keys] = keys.with_name(f".{keys.name}.{uuid.uuid4().hex}")
    try:
        with maker(list(made.values()), space, info) as write:
            yield write
        for target, unfinished in made.items():
            unfinished.replace(target)
    except FileNotFoundError as error:
        raise InvalidRequest(f"{output.parent} is no directory; make it first.") from error
    finally:
        for unfinished in made.values():
            unfinished.unlink(missing_ok=True)


def _schema(space: Space, info: ScanInfo) -> pa.Schema:
    return scan_schema(info, space.key_type, space.dim, _answers(space), SCAN_COLUMNS)


def _answers(space: Space) -> VectorDtype:
    return Storage(space.dtype, space.dim).answers


@contextmanager
def _arrow(paths: list[Path], space: Space, info: ScanInfo) -> Iterator[_Write]:
    schema = _schema(space, info)
    with pa.OSFile(str(paths[0]), "wb") as file, pa.ipc.new_file(file, schema) as writer:
        yield lambda batch: writer.write_batch(scan_batch_to_arrow(batch, schema))


@contextmanager
def _parquet(paths: list[Path], space: Space, info: ScanInfo) -> Iterator[_Write]:
    schema = _schema(space, info)
    with pyarrow.parquet.ParquetWriter(str(paths[0]), schema) as writer:
        yield lambda batch: writer.write_batch(scan_batch_to_arrow(batch, schema))


@contextmanager
def _npy(paths: list[Path], space: Space, info: ScanInfo) -> Iterator[_Write]:
    shapes = ((np.dtype(_answers(space)), (info.rows, space.dim)), (np.dtype(np.int64), (info.rows,)))
    with open(paths[0], "wb") as vectors, open(paths[1], "wb") as keys:
        for file, (dtype, shape) in zip((vectors, keys), shapes, strict=True):
            header = {"descr": dtype.newbyteorder("<").str, "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_2_0(file, header)

        def write(batch: ScanBatch) -> None:
            vectors.write(np.ascontiguousarray(batch.vectors).data)
            keys.write(np.ascontiguousarray(batch.keys).data)

        yield write
