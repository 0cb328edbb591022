"""What is searched for, in which space, and FAISS alone brought to the same recall.

Legend: Q queries, K results, D dimension, R rows.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from bedplate.codecs import encode_keys_raw
from bedplate.errors import InternalError
from bedplate.wire.filters import Filter
from bedplate.wire.store import IndexKind, IndexSpecification
from bedplate_store.indexes import IndexDocument, index_key
from bedplate_store.readers import SpaceReader
from benchmarks.bare_faiss import BareIndex, Effort, SelectedRows, recall_of
from benchmarks.bare_work import Search
from benchmarks.vectors import clustered, gapped_keys
from benchmarks.workbench import REFERENCE, SEARCH_DIM, Workbench

RECALL_TARGET = 0.95
QUERIES = 4096
SELECTIVITY = 0.1
_ATTRIBUTE = "tenth"
_FILTER = Filter(attribute=_ATTRIBUTE, equals=3)
_TUNED_ON = 500
"""Queries that recalls are measured on; of them ten thousand results and more."""
_REFINE_FACTORS = (None, 1.0, 1.5, 2.0, 4.0)  # those that the platform tunes with, and none
_AGREEMENT = 0.99  # all but ties

Answer = Callable[[NDArray[np.int64]], Any]
"""A search of the queries at these places [Q]."""


@dataclass(frozen=True)
class Question:
    """``by_key``: queries are the rows of keys, which are left out ("like this item")."""

    k: int
    recall: float
    filtered: bool = False
    by_key: bool = False

    def __str__(self) -> str:
        like = " by key" if self.by_key else ""
        filtered = f", filter {SELECTIVITY:g}" if self.filtered else ""
        return f"top {self.k}{like} at {self.recall:g}{filtered}"


@dataclass(frozen=True)
class Files:
    """What a bare application needs of a subject."""

    index: Path
    vectors: Path
    keys: Path
    mask: Path


@dataclass(frozen=True)
class Subject:
    """One published space with its index, as the platform and as bare FAISS see it.

    Attributes:
        vectors: float32 [R, D], mapped. keys: int64 [R]. files: where index, vectors, keys and mask lie.
        queries: float32 [QUERIES, D], none of them a row. asked: rows [QUERIES], for searches by key.
        selected: the rows that pass the filter.
    """

    space: str
    rows: int
    index: IndexDocument
    reader: SpaceReader
    bare: BareIndex
    vectors: NDArray[np.float32]
    keys: NDArray[np.int64]
    queries: NDArray[np.float32]
    asked: NDArray[np.int64]
    selected: SelectedRows
    files: Files


@dataclass(frozen=True)
class Match:
    """The platform and bare FAISS on one question, at the same recall, as measured on the same queries.

    Attributes:
        ours, bare: the two searches; ``bare`` also takes the number of threads.
    """

    subject: Subject
    question: Question
    ours: Answer
    bare: Callable[[NDArray[np.int64], int], Any]
    recall: float
    effort: Effort

    @property
    def title(self) -> str:
        kind = f"{self.subject.rows:,} {self.subject.index.kind}"
        return f"{kind}, {self.question} (recall {self.recall:.3f}, FAISS {self.effort.recall:.3f})"

    @property
    def details(self) -> dict[str, float]:
        return {
            "recall": self.recall,
            "limit_recall": self.effort.recall,
            "limit_effort": float(self.effort.ef),
            "limit_refine_factor": self.effort.refine_factor or 0.0,
            "index_bytes": float(self.subject.index.bytes),
        }

    def work(self, threads: int) -> Search:
        """The bare search, for an application of its own."""
        subject, question, effort = self.subject, self.question, self.effort
        files = subject.files
        return Search(
            index=str(files.index),
            index_kind=subject.index.kind,
            vectors=str(files.vectors),
            dim=subject.vectors.shape[1],
            keys=str(files.keys),
            k=question.k,
            ef=effort.ef,
            refine_factor=effort.refine_factor,
            selected=str(files.mask) if question.filtered else None,
            by_key=question.by_key,
            threads=threads,
        )

    @property
    def path(self) -> str:
        """Of the question over HTTP."""
        question = self.question
        parameters = f"k={question.k}&recall={question.recall:g}"
        if question.by_key:
            parameters += "&by=key"
        if question.filtered:
            parameters += f"&filter={_url_encoded(_FILTER)}"
        return f"/v1/spaces/{REFERENCE}/{self.subject.space}/search?{parameters}"

    def bodies(self, batch: int) -> list[bytes]:
        """All queries, ``batch`` in a raw body."""
        subject, count = self.subject, QUERIES // batch
        if not self.question.by_key:
            whole = subject.queries[: count * batch].astype("<f4")
            return [part.tobytes() for part in whole.reshape(count, -1)]
        keys = subject.keys[subject.asked[: count * batch]].reshape(count, batch)
        return [encode_keys_raw(part) for part in keys]


def publish(bench: Workbench, space: str, kind: IndexKind, rows: int) -> Subject:
    """Publish clustered vectors with an attribute that a tenth of them has."""
    bench.say(f"search: publishing {rows:,} x {SEARCH_DIM} with an index of kind {kind} ...")
    vectors, queries = clustered(rows, QUERIES, SEARCH_DIM)
    keys, random = gapped_keys(rows), np.random.default_rng(7)
    tenths = random.integers(0, round(1 / SELECTIVITY), rows)
    index = bench.publish(
        space,
        keys,
        vectors,
        IndexSpecification(kind=kind, recall_target=RECALL_TARGET),
        pa.table({_ATTRIBUTE: tenths}),
    ).index
    path = None if index is None else bench.objects.local_path(index_key(index.digest))
    reader = bench.reader(space)
    if index is None or path is None or reader.base is None or reader.base.vectors_path is None:
        raise InternalError(f"the space {space} was published without rows or index on this machine")
    mapped = np.asarray(reader.base.vectors, np.float32)
    selected = SelectedRows(tenths == _FILTER.equals)
    files = Files(
        path,
        reader.base.vectors_path,
        *(bench.folder / f"{space}-{name}.npy" for name in ("keys", "mask")),
    )
    np.save(files.keys, keys)
    np.save(files.mask, selected.mask)
    return Subject(
        space=space,
        rows=rows,
        index=index,
        reader=reader,
        bare=BareIndex(path, index.kind, mapped),
        vectors=mapped,
        keys=keys,
        queries=queries,
        asked=random.integers(0, rows, QUERIES),
        selected=selected,
        files=files,
    )


def match(bench: Workbench, subject: Subject, question: Question) -> Match:
    """Measure the platform's recall, and find FAISS's cheapest way to the same.

    Raises:
        InternalError: over HTTP the platform answers something else than in process.
    """
    k, places = question.k, np.arange(_TUNED_ON)
    filter = _FILTER if question.filtered else None
    selected = subject.selected if question.filtered else None
    queries = subject.vectors[subject.asked[places]] if question.by_key else subject.queries[places]
    wanted = k + question.by_key  # its own row is found, and dropped
    exact = subject.bare.exact(queries, wanted, selected)
    if question.by_key:
        exact = _without(exact, subject.asked[places])
    ours = partial(_ours, subject, question, filter)
    answered = ours(places).keys
    recall = recall_of(_rows_of(subject, answered), exact)
    _check(bench, subject, question, filter, places, answered)
    efforts = subject.bare.efforts(queries, exact, wanted, recall, _REFINE_FACTORS, selected)
    effort = min(efforts, key=lambda effort: _seconds(subject.bare, queries, wanted, effort))
    return Match(subject, question, ours, partial(_bare, subject, question, effort), recall, effort)


def _ours(subject: Subject, question: Question, filter: Filter | None, places: NDArray[np.int64]) -> Any:
    reader, settings = subject.reader, (question.k, None, question.recall, filter)
    if question.by_key:
        return reader.search_by_key(subject.keys[subject.asked[places]], *settings)
    return reader.search(subject.queries[places], *settings)


def _bare(
    subject: Subject, question: Question, effort: Effort, places: NDArray[np.int64], threads: int
) -> Any:
    if question.by_key:
        return subject.bare.search(subject.vectors[subject.asked[places]], question.k + 1, effort, threads)
    return subject.bare.search(subject.queries[places], question.k, effort, threads)


def _check(
    bench: Workbench,
    subject: Subject,
    question: Question,
    filter: Filter | None,
    places: NDArray[np.int64],
    expected: Any,
) -> None:
    """A wrong answer is not worth measuring."""
    settings: dict[str, Any] = {"k": question.k, "recall": question.recall, "filter": filter}
    reference = f"{REFERENCE}/{subject.space}"
    if question.by_key:
        answer = bench.client.spaces.search(reference, keys=subject.keys[subject.asked[places]], **settings)
    else:
        answer = bench.client.spaces.search(reference, subject.queries[places], **settings)
    agreement = recall_of(np.asarray(answer.keys), np.asarray(expected))
    if agreement < _AGREEMENT:
        raise InternalError(f"{question}: {agreement:.0%} of the hits over HTTP are those in process")


def _seconds(bare: BareIndex, queries: NDArray[np.float32], k: int, effort: Effort) -> float:
    """The least of three passes over single queries."""
    passes = []
    for _ in range(3):
        began = time.perf_counter()
        for row in range(len(queries)):
            bare.search(queries[row : row + 1], k, effort, 1)
        passes.append(time.perf_counter() - began)
    return min(passes)


def _rows_of(subject: Subject, keys: Any) -> NDArray[np.int64]:
    """Rows of keys that exist; -1 stays -1."""
    found = np.asarray(keys)
    return np.where(found < 0, -1, np.searchsorted(subject.keys, found))


def _without(rows_QK: NDArray[np.int64], own_Q: NDArray[np.int64]) -> NDArray[np.int64]:
    """One result less for each query: its own row, or the last."""
    kept = [row[row != own][: rows_QK.shape[1] - 1] for row, own in zip(rows_QK, own_Q, strict=True)]
    return np.stack(kept)


def _url_encoded(filter: Filter) -> str:
    return quote(filter.model_dump_json(by_alias=True, exclude_none=True))
