# arrays carry shape suffixes: x_ND
"""Scores of surfaces' experts, on the very TAE bytes that are logged."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from bedplate.references import SpaceReference
from bedplate_modeling.events import History
from bedplate_modeling.expert_rows import ExpertRows
from bedplate_services.serving.models import LoadedExpert
from bedplate_store import timelines
from bedplate_store.database import ReadSession
from bedplate_store.readers import SpaceReader, SpaceReaders
from bedplate_store.times import instant

_INTEGER = re.compile("-?[0-9]+")
Features = Mapping[str, Mapping[str, Any]]


class Ranking(Protocol):
    """What is needed of a request to rank it."""

    @property
    def user(self) -> str: ...
    @property
    def surface(self) -> str: ...
    @property
    def candidates(self) -> Sequence[str]: ...
    @property
    def served_at_us(self) -> int: ...
    @property
    def at_ms(self) -> int: ...
    @property
    def expert(self) -> LoadedExpert | None: ...


@dataclass(frozen=True)
class Ranked:
    """A request and its TAE by version label, [M, D] in the dtype they are logged in."""

    asked: Ranking
    tae: Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Scored:
    """An expert's scores, float32 [M], and the snapshot of each space whose vectors it read."""

    scores: NDArray[np.float32]
    snapshots: Mapping[str, int]


class Ranker:
    """Scores the requests of a batch, one expert pass for all requests of an expert."""

    def __init__(self, readers: SpaceReaders) -> None:
        self._readers = readers

    def histories(self, session: ReadSession, batch: Sequence[Ranking]) -> list[History]:
        """For each request with an expert, its latest events of the same surface; empty ones for the
        others.
        """
        found = [History.empty() for _ in batch]
        for expert, rows in _by_expert(batch):
            limit, surface = expert.runtime.config.history_length, expert.wanted.surface
            wanted = [(batch[row].user, instant(batch[row].served_at_us)) for row in rows]
            read = timelines.read_many(session, wanted, limit=limit, surface=surface)
            for row, columns in zip(rows, read, strict=True):
                times = columns.event_time_us // 1000
                found[row] = History(columns.item, columns.action, columns.surface, times)
        return found

    def rank(
        self, batch: Sequence[Ranked], histories: Sequence[History], features: Features
    ) -> list[Scored | None]:
        """The scores for each request with an expert, None for the others.

        Raises:
            NotFound, SpaceNotReady: the expert reads vectors of a space that is not there.
            ExpertRowsInvalid: the expert's checkpoint does not fit the version it is pinned to.
        """
        scored: list[Scored | None] = [None] * len(batch)
        for expert, rows in _by_expert([one.asked for one in batch]):
            chosen = [batch[row] for row in rows]
            sizes = [len(one.asked.candidates) for one in chosen]
            readers = self._open(expert)
            inputs = self._rows(expert, chosen, sizes, [histories[row] for row in rows], features, readers)
            parts = np.split(expert.runtime.score(inputs), np.cumsum(sizes)[:-1])
            snapshots = {space: reader.snapshot for space, reader in readers.items()}
            for row, part in zip(rows, parts, strict=True):
                scored[row] = Scored(part, snapshots)
        return scored

    def _open(self, expert: LoadedExpert) -> dict[str, SpaceReader]:
        """One reader for each space the expert reads, for the whole pass: an answer never mixes snapshots."""
        config = expert.runtime.config
        if config.foundation_inputs in ("none", "tae"):
            return {}
        return {space: self._reader(space) for space in config.spaces}

    def _reader(self, space: str) -> SpaceReader:
        reference = SpaceReference.parse(space)
        version = reference.version
        return self._readers.get(version.foundation, int(version.selector), reference.space)

    def _rows(
        self,
        expert: LoadedExpert,
        batch: Sequence[Ranked],
        sizes: Sequence[int],
        histories: Sequence[History],
        features: Features,
        readers: Mapping[str, SpaceReader],
    ) -> ExpertRows:
        return ExpertRows(
            items=[item for one in batch for item in one.asked.candidates],
            request_index_N=np.repeat(np.arange(len(batch), dtype=np.int64), sizes),
            histories=histories,
            request_at_ms_R=np.array([one.asked.at_ms for one in batch], np.int64),
            item_features=features,
            **_foundation_inputs(expert, batch, sizes, readers),
        )


def _foundation_inputs(
    expert: LoadedExpert, batch: Sequence[Ranked], sizes: Sequence[int], readers: Mapping[str, SpaceReader]
) -> dict[str, Any]:
    config = expert.runtime.config
    if config.foundation_inputs == "none":
        return {}
    if config.foundation_inputs == "tae":
        label = expert.wanted.pinned or ""
        return {"tae_ND": np.concatenate([one.tae[label] for one in batch]).astype(np.float32)}
    user_space, item_space = config.spaces
    users, users_found = _lookup(readers[user_space], [one.asked.user for one in batch])
    candidates = [item for one in batch for item in one.asked.candidates]
    items, items_found = _lookup(readers[item_space], candidates)
    return {
        "user_vectors_ND": np.repeat(users, sizes, axis=0),
        "user_found_N": np.repeat(users_found, sizes),
        "item_vectors_ND": items,
        "item_found_N": items_found,
    }


def _lookup(reader: SpaceReader, keys: Sequence[str]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """float32 [n, D], zeros where nothing is found, and the found mask [n]. In a space of int64 keys a text
    that is no such number is not found.
    """
    if reader.key_type == "string":
        result = reader.lookup(list(keys), "float32")
        return cast(NDArray[np.float32], result.vectors), result.found
    numbers = [_int64(key) for key in keys]
    askable = np.array([number is not None for number in numbers], np.bool_)
    vectors = np.zeros((len(keys), reader.dim), np.float32)
    found = np.zeros(len(keys), np.bool_)
    asked = np.array([number for number in numbers if number is not None], np.int64)
    result = reader.lookup(asked, "float32")
    vectors[askable], found[askable] = result.vectors, result.found
    return vectors, found


def _int64(key: str) -> int | None:
    if _INTEGER.fullmatch(key) is None:
        return None
    number = int(key)
    return number if -(2**63) <= number < 2**63 else None


def _by_expert(batch: Sequence[Ranking]) -> list[tuple[LoadedExpert, list[int]]]:
    rows: dict[str, tuple[LoadedExpert, list[int]]] = {}
    for row, asked in enumerate(batch):
        if asked.expert is not None:
            rows.setdefault(asked.expert.label, (asked.expert, []))[1].append(row)
    return list(rows.values())
