"""Target-aware embeddings on the wire. Shape suffixes: M candidates, D dimension."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from bedplate.codecs.columns import Vectors, column, decode_table, encode_table, metadata_of, vectors_to_arrow
from bedplate.errors import InvalidRequest

_TAE = "tae:"
_PREDICTION = "prediction:"


@dataclass(frozen=True, slots=True)
class TaeColumns:
    """One request's target-aware embeddings, by foundation version (``core@7``).

    Attributes:
        vectors: float16 or float32 [M, D] for each version; empty where none were asked for.
        predictions: float32 [M], the foundation's own probability of the main task.
    """

    request_id: str
    served_at: datetime
    history_events: int
    items: list[str]
    vectors: dict[str, Vectors] = field(default_factory=dict)
    predictions: dict[str, NDArray[np.float32]] = field(default_factory=dict)


def encode_tae_arrow(answers: Sequence[TaeColumns]) -> bytes:
    """One stream for one or many requests: request_id, item, position, ``tae:core@7``, ``prediction:core@7``.

    A version that a request did not ask for is null in its rows. The metadata ``bedplate.requests`` lists the
    requests in order, with what is not a column: served_at, history_events, rows, versions.
    """
    if not answers:
        raise InvalidRequest("There is no answer to encode.")
    positions = [np.arange(len(answer.items), dtype=np.int32) for answer in answers]
    columns: dict[str, Any] = {
        "request_id": pa.array([answer.request_id for answer in answers for _ in answer.items]),
        "item": pa.array([item for answer in answers for item in answer.items]),
        "position": pa.array(np.concatenate(positions)),
    }
    for version in dict.fromkeys(name for answer in answers for name in answer.vectors):
        columns[_TAE + version] = _vector_column(answers, version)
    for version in dict.fromkeys(name for answer in answers for name in answer.predictions):
        columns[_PREDICTION + version] = pa.chunked_array(
            [
                pa.array(answer.predictions[version], pa.float32())
                if version in answer.predictions
                else pa.nulls(len(answer.items), pa.float32())
                for answer in answers
            ]
        )
    requests = [
        {
            "request_id": answer.request_id,
            "served_at": answer.served_at.isoformat(),
            "history_events": answer.history_events,
            "rows": len(answer.items),
            "tae": list(answer.vectors),
            "predictions": list(answer.predictions),
        }
        for answer in answers
    ]
    return encode_table(
        pa.table(columns).replace_schema_metadata({"bedplate.requests": json.dumps(requests)})
    )


def _vector_column(answers: Sequence[TaeColumns], version: str) -> pa.ChunkedArray:
    first = next(answer.vectors[version] for answer in answers if version in answer.vectors)
    kind = vectors_to_arrow(first).type
    return pa.chunked_array(
        [
            vectors_to_arrow(answer.vectors[version])
            if version in answer.vectors
            else pa.nulls(len(answer.items), kind)
            for answer in answers
        ]
    )


def decode_tae_arrow(body: bytes | memoryview) -> list[TaeColumns]:
    """The answers of a stream, in the order of the requests; vectors bit-equal to what was encoded.

    Raises:
        InvalidRequest: the stream is not as ``encode_tae_arrow`` writes it.
    """
    table = decode_table(body)
    metadata = metadata_of(table)
    if "bedplate.requests" not in metadata:
        raise InvalidRequest("The stream lacks the metadata bedplate.requests.")
    requests = json.loads(metadata["bedplate.requests"])
    if sum(request["rows"] for request in requests) != table.num_rows:
        raise InvalidRequest("The stream has other rows than its metadata bedplate.requests says.")
    answers: list[TaeColumns] = []
    start = 0
    for request in requests:
        rows = table.slice(start, request["rows"])
        start += request["rows"]
        answers.append(
            TaeColumns(
                request_id=request["request_id"],
                served_at=datetime.fromisoformat(request["served_at"]),
                history_events=request["history_events"],
                items=column(rows, "item").to_pylist(),
                vectors={name: _vectors(column(rows, _TAE + name)) for name in request["tae"]},
                predictions={
                    name: column(rows, _PREDICTION + name).to_numpy() for name in request["predictions"]
                },
            )
        )
    return answers


def _vectors(values: pa.ChunkedArray) -> Vectors:
    flat = pa.chunked_array([chunk.flatten() for chunk in values.chunks], values.type.value_type)
    vectors: Vectors = flat.to_numpy().reshape(len(values), values.type.list_size)
    return vectors
