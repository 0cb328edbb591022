"""Lookup, search and writes in embedding spaces. Shape suffixes: N rows, Q queries, K hits, D dimension."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from bedplate.client import space_reads
from bedplate.client.answers import read_document
from bedplate.client.downloads import Progress
from bedplate.client.effects import Steps
from bedplate.client.lookups import Lookup, Search, read_lookup, read_search
from bedplate.client.requests import Listing, bulk, get, get_list, json_request, parameters, path, send
from bedplate.client.steps import Namespace, RunnerT, exchange, operation
from bedplate.client.streams import streamed
from bedplate.codecs import (
    ARROW,
    RAW,
    SCAN_COLUMNS,
    Keys,
    ScanBatch,
    SearchQueries,
    VectorDtype,
    Vectors,
    as_keys,
    encode_keys_arrow,
    encode_keys_raw,
    encode_search_arrow,
    encode_upsert_arrow,
    encode_vectors_raw,
)
from bedplate.errors import DimensionMismatch, EmptyBatch, InvalidRequest
from bedplate.references import SpaceReference
from bedplate.space_data import SpaceData
from bedplate.wire.filters import Filter
from bedplate.wire.store import (
    EmbedAnswer,
    EmbedRequest,
    OpenReader,
    Snapshot,
    Space,
    SpaceFiles,
    StorageCost,
    WriteAnswer,
)

AnyKeys = Sequence[int] | Sequence[str] | NDArray[Any]


EMBED_TIMEOUT_SECONDS = 600.0  # attributes take their types from the whole catalogue


_HITS = f"{RAW}, {ARROW};q=0.9"
"""Raw bytes hold no string keys: hits of a space that has them come as Arrow."""


def _space(reference: str, *rest: str) -> str:
    parsed = SpaceReference.parse(reference)
    return path("spaces", str(parsed.version), parsed.space, *rest)


def _keys(keys: AnyKeys) -> Keys:
    if isinstance(keys, str):
        raise InvalidRequest(f"keys is the single string {keys!r}; give a list, e.g. [{keys!r}].")
    checked = as_keys(keys)
    if len(checked) == 0:
        raise EmptyBatch("There are no keys; give at least one.")
    return checked


def _keys_body(keys: Keys) -> tuple[bytes, str]:
    return (encode_keys_raw(keys), RAW) if isinstance(keys, np.ndarray) else (encode_keys_arrow(keys), ARROW)


def _search_body(queries: SearchQueries) -> tuple[bytes, str, dict[str, str]]:
    """The body, its media type, and what the query string says about it.

    Without the dimension, vectors of twice the space's would pass as twice the queries.
    """
    if queries.vectors is not None:
        dim = queries.vectors.shape[1]
        return encode_vectors_raw(queries.vectors), RAW, {"dim": str(dim)}
    if isinstance(queries.keys, np.ndarray):
        return encode_keys_raw(queries.keys), RAW, {"by": "key"}
    return encode_search_arrow(queries), ARROW, {}


def _filter(filter: Filter | Mapping[str, Any] | None) -> str | None:
    if filter is None:
        return None
    try:
        checked = filter if isinstance(filter, Filter) else Filter.model_validate(filter)
    except ValidationError as error:
        raise InvalidRequest(f"The filter is malformed: {error}.") from error
    return checked.text


def _matrix(vectors: Any) -> Vectors:
    array = np.asarray(vectors)
    if array.ndim == 1 and array.dtype != object:
        array = array[np.newaxis]
    if array.ndim != 2 or array.dtype.kind not in "fiu":
        raise DimensionMismatch(
            f"vectors has shape {array.shape} and dtype {array.dtype}; give numbers in a rectangle [n, dim]."
        )
    if len(array) == 0:
        raise EmptyBatch("There are no vectors; give at least one.")
    if array.dtype == np.float16:
        return array
    return array.astype(np.float32, copy=False)


def _queries(vectors: Any, keys: AnyKeys | None) -> SearchQueries:
    if (vectors is None) == (keys is None):
        raise InvalidRequest("Search by vectors or by keys: give exactly one of the two.")
    if keys is not None:
        return SearchQueries(keys=_keys(keys))
    return SearchQueries(vectors=_matrix(vectors))


def _partial(allow: bool) -> dict[str, str]:
    # Left out where it says what is usual: such requests take the server's shortest path.
    return {"allow_partial": "true"} if allow else {}


def _token(after: WriteAnswer | str | None) -> str | None:
    return after.token if isinstance(after, WriteAnswer) else after


class Spaces(Namespace[RunnerT]):
    """Embedding spaces. A reference is ``core@7/item`` or ``core@production/item``."""

    @operation
    def list(self, foundation: str | None = None) -> Steps[Listing[Space]]:
        """Every space, of one foundation if given."""
        return get_list(path("spaces"), Space, parameters(foundation=foundation))

    @operation
    def get(self, reference: str) -> Steps[Space]:
        """Raises NotFound."""
        return get(_space(reference), Space)

    @operation
    def snapshots(self, reference: str) -> Steps[Listing[Snapshot]]:
        """What was published, newest first."""
        return get_list(_space(reference, "snapshots"), Snapshot)

    @operation
    def storage_costs(self, reference: str) -> Steps[Listing[StorageCost]]:
        """What each way of storing the space takes and costs: bytes, error, recall, NE of its experts.

        One document for each dtype. NE comes from evaluations that say what they read:
        ``client.evaluations.record(EvaluationCreate(..., reads=[SpaceRead(space="core@7/item")]))``.
        """
        return get_list(_space(reference, "storage-costs"), StorageCost)

    @operation
    def readers(self, reference: str) -> Steps[Listing[OpenReader]]:
        """The processes that have the space open, each with the snapshot it answers from."""
        return get_list(_space(reference, "readers"), OpenReader)

    @operation
    def lookup(
        self,
        reference: str,
        keys: AnyKeys,
        dtype: VectorDtype | None = None,
        *,
        after: WriteAnswer | str | None = None,
        allow_partial: bool = False,
    ) -> Steps[Lookup]:
        """The vectors of keys, in their order; an unknown key is not an error but ``found`` false.

        Args:
            keys: N int64 or string keys, as the space's ``key_type`` says.
            dtype: of the vectors in the answer; None: as stored, float16 where that is compressed.
            after: a write, as answered by :meth:`upsert` or :meth:`delete`, or its token; it is seen.
            allow_partial: where store nodes answer: take what those have that answer in time.

        Raises:
            ShardsUnanswered: some store nodes did not answer; ``error.context`` names their shards.
            NotFound, SpaceNotReady, KeyTypeMismatch, EmptyBatch, BatchTooLarge.
            WriteTokenMismatch: the write went to another space, the alias moved since, or there was no such
                write.
        """
        body, media = _keys_body(_keys(keys))
        accept = f"{RAW};dtype={dtype}" if dtype else RAW
        response = yield from bulk(
            _space(reference, "lookup"),
            body,
            media,
            accept=accept,
            params=_partial(allow_partial),
            after=_token(after),
            hot=True,
        )
        return read_lookup(response)

    @operation
    def search(
        self,
        reference: str,
        vectors: Any = None,
        *,
        keys: AnyKeys | None = None,
        k: int = 10,
        ef: int | None = None,
        recall: float | None = None,
        filter: Filter | Mapping[str, Any] | None = None,
        after: WriteAnswer | str | None = None,
        allow_partial: bool = False,
    ) -> Steps[Search]:
        """The K best rows for each vector, or for each key (whose own row is left out).

        Args:
            vectors: [Q, D], or [D] for one query.
            keys: Q keys, instead of vectors.
            ef: search effort of the index; None: as tuned to the recall target.
            recall: instead, the effort that reached this recall when the index was tuned.
            filter: only rows whose attributes pass, e.g. ``{"attribute": "year", "at_least": 1990}``.
            after: a write, or its token, that the answer sees; as in :meth:`lookup`.
            allow_partial: as in :meth:`lookup`.

        Raises:
            InvalidRequest: the filter does not fit the space's attributes.
            NotFound, SpaceNotReady, DimensionMismatch, NonFiniteVectors, KeyTypeMismatch, EmptyBatch.
            WriteTokenMismatch, ShardsUnanswered: as :meth:`lookup`.
        """
        queries = _queries(vectors, keys)
        body, media, about = _search_body(queries)
        response = yield from bulk(
            _space(reference, "search"),
            body,
            media,
            accept=_HITS if media == RAW else ARROW,
            params={
                **parameters(k=k, ef=ef, recall=recall, filter=_filter(filter)),
                **about,
                **_partial(allow_partial),
            },
            after=_token(after),
            hot=True,
        )
        return read_search(response, k, by_key=queries.keys is not None)

    @streamed.of(ScanBatch)
    def scan(
        self,
        reference: str,
        *,
        batch_rows: int | None = None,
        shard: tuple[int, int] = (0, 1),
        columns: Sequence[str] = SCAN_COLUMNS,
        via: Literal["rest", "files"] = "rest",
    ) -> Steps[None]:
        """Every row of the space as NumPy batches, all of one state of it; each batch names the state.

        A broken connection is taken up again where it broke: no row comes twice, none is lost.

        Args:
            batch_rows: at most so many rows at a time; None: 4 MiB of vectors.
            shard: (i, n): the i-th of n equal parts, from 0; the same part again only within one state.
            columns: ``key``, ``vector`` or both.
            via: ``rest`` streams through the API; ``files`` maps the files where they lie on this machine,
                else fetches them from object storage first.

        Raises:
            NotFound, SpaceNotReady; SnapshotGone where the state was collected before the end: start again.
        """
        if via not in ("rest", "files"):
            raise InvalidRequest(f"via is {via!r}; give 'rest' or 'files'.")
        if via == "rest":
            return space_reads.scan(reference, batch_rows, shard, columns)
        return space_reads.scan_files(reference, batch_rows, shard, columns, self.runner.verified)

    @operation
    def files(self, reference: str) -> Steps[SpaceFiles]:
        """The files of the newest state, with signed URLs that need no token and expire."""
        return space_reads.list_files(reference)

    @operation
    def read(self, reference: str, *, progress: Progress | None = None) -> Steps[SpaceData]:
        """The space, verified and memory-mapped: in place where its files lie on this machine, else from a
        temporary copy that lives as long as the result.

        Raises:
            NotFound, SpaceNotReady, SnapshotGone, DigestMismatch.
        """
        return space_reads.read(reference, self.runner.verified, progress)

    @operation
    def download(
        self, reference: str, directory: str | Path, *, progress: Progress | None = None
    ) -> Steps[SpaceData]:
        """Fetch the space's files into ``directory``, verify their SHA-256, and open them memory-mapped.

        What is there is not fetched again, nor the part of a file that came before a process was killed.
        ``SpaceData.open(directory)`` opens it again without the platform.

        Args:
            progress: called with (file name, bytes done, bytes in all).

        Raises:
            NotFound, SpaceNotReady, SnapshotGone, DigestMismatch.
        """
        return space_reads.download(reference, Path(directory), progress)

    @operation
    def upsert(
        self, reference: str, keys: AnyKeys, vectors: Any, *, attributes: Mapping[str, Any] | None = None
    ) -> Steps[WriteAnswer]:
        """Insert or replace vectors [N, D]; durable when this returns.

        Readers see the write within one second, if the machine lets them run. Where the process that answers
        shows writes slower than they come, this call waits for it.

        Whoever must see it at once passes the answer on: ``lookup(..., after=answer)``. float16 is sent as it
        is, everything else as float32. A row is replaced as a whole, its attributes too.

        Args:
            attributes: for filters, by name: N integers, floats, bools, strings or lists of strings, or None.

        Raises:
            DimensionMismatch, NonFiniteVectors, KeyTypeMismatch, BatchTooLarge, Forbidden.
            Conflict: an attribute has another type in this space.
            TooManyPendingWrites: compaction is behind; send it again later.
        """
        body = encode_upsert_arrow(_keys(keys), _matrix(vectors), attributes)
        response = yield from bulk(_space(reference, "upsert"), body, ARROW)
        return read_document(WriteAnswer, response)

    @operation
    def delete(self, reference: str, keys: AnyKeys) -> Steps[WriteAnswer]:
        """Delete keys; unknown ones are no error. Durable when this returns."""
        body = encode_keys_arrow(_keys(keys))
        response = yield from bulk(_space(reference, "delete"), body, ARROW)
        return read_document(WriteAnswer, response)

    @operation
    def embed(self, reference: str, request: EmbedRequest | None = None) -> Steps[str]:
        """Start a job that embeds the space's entities, indexes and publishes them; returns the job's id.

        With an ``idempotency_key`` the same request gives the same job. ``attributes`` of the request name
        features of the items to filter by, e.g. ``EmbedRequest(attributes=("genres", "year"))``; without them
        the job keeps those that the space has, or else had in the version before.

        Raises:
            InvalidRequest: no item has such a feature, or the space holds users.
            Conflict: items disagree about the type of one; there is nothing to embed yet.
        """
        body = request or EmbedRequest()
        url, again = _space(reference, "embed"), body.idempotency_key is not None
        asked = json_request("POST", url, body, idempotent=again)
        response = yield from exchange(replace(asked, timeout_seconds=EMBED_TIMEOUT_SECONDS))
        return read_document(EmbedAnswer, response).job

    @operation
    def compact(self, reference: str) -> Steps[str]:
        """Start a job that folds upserts and deletions into a new snapshot; returns the job's id."""
        answer = yield from send("POST", _space(reference, "compact"), None, EmbedAnswer)
        return answer.job
