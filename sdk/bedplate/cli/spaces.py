"""``bedplate spaces``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from pydantic import ValidationError

from bedplate.cli import space_reads
from bedplate.cli.jobs import follow
from bedplate.cli.options import AsJson, Time, client_of, command, group
from bedplate.cli.output import print_json, print_table, say, show, show_list
from bedplate.client import Client, Search
from bedplate.errors import InvalidRequest, KeyTypeMismatch
from bedplate.wire.filters import Filter
from bedplate.wire.registry import NeCost
from bedplate.wire.shards import SHARDS_MAX
from bedplate.wire.store import EmbedRequest, IndexKind, IndexSpecification

_SHOWN = 6
After = Annotated[
    str | None, typer.Option(help="The token of a write (its answer's 'token') that must be visible.")
]
_EMPTY = "There are no spaces yet. They come with a version: bedplate versions publish core DIRECTORY"


spaces = group("spaces", "Embedding spaces, e.g. core@7/item or core@production/item.")


def add(app: typer.Typer) -> None:
    """Add the commands to ``app``."""
    app.add_typer(spaces)


@command(spaces, "list", "bedplate spaces list --foundation core")
def list_spaces(context: typer.Context, foundation: str | None = None, json: AsJson = False) -> None:
    """List the spaces and the snapshots their readers see."""
    show_list(
        client_of(context).spaces.list(foundation),
        ("SPACE", "DIM", "DTYPE", "METRIC", "KEYS", "SNAPSHOT", "ROWS", "PENDING", "UPDATED"),
        lambda one: (
            one.reference,
            one.dim,
            one.dtype,
            one.metric,
            one.key_type,
            one.snapshot,
            one.rows,
            one.pending_rows,
            one.updated_at,
        ),
        as_json=json,
        empty=_EMPTY,
    )


@command(spaces, "show", "bedplate spaces show core@production/item")
def show_space(context: typer.Context, reference: str, json: AsJson = False) -> None:
    """Show one space."""
    show(client_of(context).spaces.get(reference), as_json=json)


@command(spaces, "snapshots", "bedplate spaces snapshots core@7/item")
def snapshots(context: typer.Context, reference: str, json: AsJson = False) -> None:
    """List what was published, with recall and cost of compression as measured.

    ERROR is the mean distance that compressing moved a vector, over its length; LEFT is the recall@10 of an
    exact search after it.
    """
    show_list(
        client_of(context).spaces.snapshots(reference),
        ("SNAPSHOT", "ROWS", "BYTES", "INDEX", "RECALL@10", "ERROR", "LEFT", "JOB", "PUBLISHED"),
        lambda one: (
            one.snapshot,
            one.rows,
            one.bytes,
            one.index_kind,
            one.recall_at_10,
            None if one.compression is None else round(one.compression.relative_error_mean, 4),
            None if one.compression is None else one.compression.recall_at_10,
            one.job,
            one.published_at,
        ),
        as_json=json,
        empty=f"Nothing is published yet. Start it: bedplate spaces embed {reference}",
    )


@command(spaces, "storage-costs", "bedplate spaces storage-costs core@7/item")
def storage_costs(context: typer.Context, reference: str, json: AsJson = False) -> None:
    """Show what float32, float16, int8 and int4 take and cost: bytes, error, recall, NE.

    ERROR and LEFT are those of bedplate spaces snapshots. NE COST is the NE of an expert that reads this
    dtype minus that of the same expert on a finer one.
    """
    costs = client_of(context).spaces.storage_costs(reference)
    show_list(
        costs,
        ("DTYPE", "BYTES A ROW", "SPACE", "SNAPSHOT", "BYTES", "ERROR", "LEFT", "NE COST"),
        lambda one: (
            one.dtype,
            one.row_bytes,
            one.space,
            one.snapshot,
            one.bytes,
            None if one.compression is None else round(one.compression.relative_error_mean, 4),
            None if one.compression is None else one.compression.recall_at_10,
            "\n".join(_ne_cost(cost) for cost in one.ne) or None,
        ),
        as_json=json,
        empty=f"{reference} can be stored in no way at all.",
    )
    if not json:
        for one in costs:
            for missing in one.unmeasured:
                say(f"{one.dtype}: {missing}")


def _ne_cost(cost: NeCost) -> str:
    spread = "" if cost.cost_std is None else f" +- {cost.cost_std:.5f}"
    seeds = f"{cost.seeds} seed{'s' if cost.seeds > 1 else ''}"
    return f"{cost.cost:+.5f}{spread} ({cost.expert}, {seeds}, against {cost.against})"


@command(spaces, "readers", "bedplate spaces readers core@7/item")
def readers(context: typer.Context, reference: str, json: AsJson = False) -> None:
    """List the processes that have the space open, and the snapshot each answers from."""
    show_list(
        client_of(context).spaces.readers(reference),
        ("SERVICE", "PROCESS", "URL", "SNAPSHOT", "NEWEST", "SEQUENCE", "SHARDS", "IN USE", "SEEN"),
        lambda one: (
            one.service,
            one.process,
            one.url,
            one.snapshot,
            one.newest,
            one.sequence,
            f"{one.node}: {', '.join(map(str, one.shards))}" if one.node else None,
            one.in_use,
            one.seen_at,
        ),
        as_json=json,
        empty=f"No process has {reference} open. The first request opens it; so does publishing it where an "
        "older version is being read through an alias.",
    )


def _typed(client: Client, reference: str, keys: list[str]) -> list[int] | list[str]:
    """Keys from the command line in the space's own type."""
    if client.spaces.get(reference).key_type == "string":
        return keys
    try:
        return [int(key) for key in keys]
    except ValueError as error:
        raise KeyTypeMismatch(f"The keys of {reference} are int64: {error}.") from error


@command(spaces, "lookup", "bedplate spaces lookup core@production/item 1193 661")
def lookup(
    context: typer.Context, reference: str, keys: list[str], after: After = None, json: AsJson = False
) -> None:
    """Look up the vectors of keys."""
    client = client_of(context)
    answer = client.spaces.lookup(reference, _typed(client, reference, keys), after=after)
    if json:
        print_json(
            {
                "version": answer.version,
                "snapshot": answer.snapshot,
                "keys": keys,
                "found": answer.found.tolist(),
                "vectors": answer.vectors.astype(np.float64).tolist(),
            }
        )
        return
    say(f"{answer.version}, snapshot {answer.snapshot}, dimension {answer.vectors.shape[1]}")
    vectors = [" ".join(f"{value:+.4f}" for value in row[:_SHOWN]) for row in answer.vectors]
    more = " ..." if answer.vectors.shape[1] > _SHOWN else ""
    rows = [
        (key, bool(found), vector + more if found else None)
        for key, found, vector in zip(keys, answer.found, vectors, strict=True)
    ]
    print_table(("KEY", "FOUND", "VECTOR"), rows)


@command(spaces, "search", "bedplate spaces search core@production/item --key 1193 -k 5")
def search(
    context: typer.Context,
    reference: str,
    key: Annotated[list[str] | None, typer.Option(help="Search for what is like this row.")] = None,
    vector: Annotated[str | None, typer.Option(help="Numbers separated by commas.")] = None,
    vectors: Annotated[Path | None, typer.Option(help="A .npy file, queries x dim.", exists=True)] = None,
    k: Annotated[int, typer.Option("-k", min=1, max=1000, help="Rows for each query.")] = 10,
    ef: Annotated[int | None, typer.Option(help="Search effort of the index. Default: as tuned.")] = None,
    recall: Annotated[float | None, typer.Option(help="The recall to search with, instead.")] = None,
    filter: Annotated[
        str | None, typer.Option(help='Only these rows: \'{"attribute": "year", "at_least": 1990}\'.')
    ] = None,
    after: After = None,
    json: AsJson = False,
) -> None:
    """Find the nearest rows of keys or vectors."""
    if sum(bool(one) for one in (key, vector, vectors)) != 1:
        raise InvalidRequest("Give exactly one of --key, --vector and --vectors.")
    client = client_of(context)
    found = client.spaces.search(
        reference,
        None if key else _vectors(vector, vectors),
        keys=_typed(client, reference, key) if key else None,
        k=k,
        ef=ef,
        recall=recall,
        filter=None if filter is None else _parsed_filter(filter),
        after=after,
    )
    labels = list(key or (str(number) for number in range(len(found.scores))))
    _show_search(found, labels, as_json=json)


def _parsed_filter(text: str) -> Filter:
    try:
        return Filter.model_validate_json(text)
    except ValidationError as error:
        raise InvalidRequest(f"--filter is malformed: {error}.") from error


def _vectors(vector: str | None, file: Path | None) -> Any:
    try:
        if vector is not None:
            return np.array([float(value) for value in vector.split(",")], dtype=np.float32)
        # allow_pickle stays False: a pickled array runs code.
        return np.load(str(file), allow_pickle=False)
    except ValueError as error:
        raise InvalidRequest(f"The vectors cannot be read: {error}.") from error


def _show_search(found: Search, labels: list[str], *, as_json: bool) -> None:
    hits = [
        [(key, float(score)) for key, score in zip(keys, scores, strict=True) if score != -np.inf]
        for keys, scores in zip(
            found.keys.tolist() if isinstance(found.keys, np.ndarray) else found.keys,
            found.scores,
            strict=True,
        )
    ]
    if as_json:
        queries = [
            {
                "query": label,
                "found": bool(known),
                "hits": [{"key": key, "score": score} for key, score in row],
            }
            for label, known, row in zip(labels, found.found, hits, strict=True)
        ]
        print_json({"version": found.version, "snapshot": found.snapshot, "queries": queries})
        return
    say(f"{found.version}, snapshot {found.snapshot}")
    for label, known in zip(labels, found.found, strict=True):
        if not known:
            say(f"{label} is not in this space.")
    rows = [
        (label, rank, str(key), score)
        for label, row in zip(labels, hits, strict=True)
        for rank, (key, score) in enumerate(row, start=1)
    ]
    if rows:
        print_table(("QUERY", "RANK", "KEY", "SCORE"), rows)
    else:
        say("Nothing was found.")


@command(spaces, "embed", "bedplate spaces embed core@7/item --recall 0.95 --attribute year")
def embed(
    context: typer.Context,
    reference: str,
    as_of: Time = None,
    partitions: Annotated[int | None, typer.Option(min=1, max=4096)] = None,
    index: Annotated[str, typer.Option(help="auto, flat, hnsw or ivf.")] = "auto",
    recall: Annotated[float, typer.Option(help="The recall@10 the index must reach.")] = 0.95,
    shards: Annotated[
        int, typer.Option(min=1, max=SHARDS_MAX, help="Parts that different store nodes may serve.")
    ] = 1,
    attribute: Annotated[
        list[str] | None,
        typer.Option(
            help="A feature of the items that searches may filter by; may be repeated. Default: those that "
            "the space has, or else had in the version before."
        ),
    ] = None,
    wait: Annotated[bool, typer.Option(help="Stay until the snapshot is published.")] = True,
    json: AsJson = False,
) -> None:
    """Embed the entities, build the index, publish the snapshot."""
    kinds: dict[str, IndexKind] = {"auto": "auto", "flat": "flat", "hnsw": "hnsw", "ivf": "ivf"}
    if index not in kinds or not 0 < recall <= 1:
        raise InvalidRequest("--index is one of auto, flat, hnsw, ivf; --recall lies above 0, at most 1.")
    specification = IndexSpecification(kind=kinds[index], recall_target=recall, shards=shards)
    request = EmbedRequest(
        as_of=as_of,
        partitions=partitions,
        index=specification,
        attributes=tuple(attribute) if attribute else None,
    )
    client = client_of(context)
    follow(client, client.spaces.embed(reference, request), wait=wait, as_json=json)


@command(spaces, "compact", "bedplate spaces compact core@7/item")
def compact(
    context: typer.Context,
    reference: str,
    wait: Annotated[bool, typer.Option(help="Stay until the snapshot is published.")] = True,
    json: AsJson = False,
) -> None:
    """Fold upserts and deletions into a new snapshot."""
    client = client_of(context)
    follow(client, client.spaces.compact(reference), wait=wait, as_json=json)


command(spaces, "scan", "bedplate spaces scan core@production/item --output items.parquet")(space_reads.scan)
command(spaces, "download", "bedplate spaces download core@production/item items/")(space_reads.download)
