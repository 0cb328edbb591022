"""Lookup and search of spaces whose shards lie with store nodes: asked side by side, merged into one answer.

Every answer is of one state. A node that is ahead of it says where it is, and the request is asked again at
that state; a node that no longer has a shard is asked about in the database, once. Whatever did not answer
before the deadline is missing, and said to be. Shapes: n keys, Q queries, K results, d the dimension.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np
import orjson
from numpy.typing import NDArray
from starlette.concurrency import run_in_threadpool

from bedplate.codecs import Keys, VectorDtype, Vectors, decode_lookup_raw, encode_vectors_raw
from bedplate.errors import InternalError, ShardsUnanswered, error_from_problem
from bedplate_services.logging import get_logger
from bedplate_services.searches import Query
from bedplate_services.shards.connections import NodeAnswer, NodeFailed
from bedplate_services.shards.exchange import (
    MISSING,
    PASSED,
    SearchSetting,
    ShardAsk,
    decode_hits,
    encode_keys,
    own_keys,
    select,
)
from bedplate_store.keys import parse_keys
from bedplate_store.segments import validate_vectors
from bedplate_store.shard_hits import HitKeys, merged, without_own
from bedplate_store.shard_routing import RemoteSpace, ShardRouting

_log = get_logger(__name__)
_ATTEMPTS = 4
_REFUSED = 422
"""What the request asks is wrong, as a filter of attributes that the space does not have."""
_AnswerT = TypeVar("_AnswerT", "RemoteLookup", "RemoteSearch")


@dataclass(frozen=True, slots=True)
class ShardCount:
    """How many of the shards that a request needs answered; ``missing`` are the others."""

    answered: int
    of: int
    missing: tuple[int, ...] = ()


class RemoteLookup(NamedTuple):
    """``answered`` [n] is false where the key's shard did not answer; it is not ``found`` then.

    ``owners`` [n] are the keys' shards, and ``missing`` those of them that did not answer.
    """

    found: NDArray[np.bool_]
    answered: NDArray[np.bool_]
    vectors: Vectors
    owners: NDArray[np.int64]
    state: RemoteSpace
    missing: tuple[int, ...]

    @property
    def shards(self) -> ShardCount:
        needed = np.bincount(self.owners, minlength=len(self.state.routes)) > 0
        missing = tuple(shard for shard in self.missing if needed[shard])
        of = int(np.count_nonzero(needed))
        return ShardCount(of - len(missing), of, missing)

    def part(self, start: int, stop: int) -> RemoteLookup:
        """Of the keys ``start`` to ``stop`` alone."""
        return self._replace(
            found=self.found[start:stop],
            answered=self.answered[start:stop],
            vectors=self.vectors[start:stop],
            owners=self.owners[start:stop],
        )


class RemoteSearch(NamedTuple):
    """As a reader's; ``answered`` [Q], of a search by key, is false where the key could not be asked for."""

    keys: HitKeys
    scores: NDArray[np.float32]
    found: NDArray[np.bool_]
    answered: NDArray[np.bool_]
    state: RemoteSpace
    shards: ShardCount

    def part(self, start: int, stop: int) -> RemoteSearch:
        """Of the queries ``start`` to ``stop`` alone."""
        return self._replace(
            keys=self.keys[start:stop],
            scores=self.scores[start:stop],
            found=self.found[start:stop],
            answered=self.answered[start:stop],
        )


class _Moved(Exception):
    """The state of a request must change; ``sequence`` None: the routes must be looked up again."""

    def __init__(self, sequence: int | None) -> None:
        super().__init__(sequence)
        self.sequence = sequence


class _Try(NamedTuple):
    """When to stop waiting, how often the request was asked before, and the ids of whose it is."""

    until: float
    number: int
    requests: Sequence[str]


@dataclass(frozen=True, slots=True)
class _Part:
    """What one node is asked: its shards, and the body."""

    url: str
    shards: tuple[int, ...]
    body: bytes


class Connections(Protocol):
    """Asks a node: :class:`bedplate_services.shards.connections.NodeConnections`."""

    def post(self, url: str, target: str, body: bytes, requests: Sequence[str]) -> Awaitable[NodeAnswer]: ...


class FanOut:
    """Belongs to one event loop.

    Args:
        deadline_seconds: how long a request waits for its shards, whatever happens.
    """

    def __init__(self, routing: ShardRouting, connections: Connections, deadline_seconds: float) -> None:
        self._routing = routing
        self._connections = connections
        self._deadline_seconds = deadline_seconds

    async def lookup(
        self, space: RemoteSpace, keys: Keys, dtype: VectorDtype, requests: Sequence[str] = ()
    ) -> RemoteLookup:
        """The vectors of ``keys`` [n] in ``dtype``, in their order, for the requests of these ids.

        Raises:
            KeyTypeMismatch: the keys are not of the space's type.
            ShardsUnanswered: the nodes do not agree on a state. Shards that did not answer are told in the
                result: see :meth:`require`.
        """
        return await self._at_one_state(
            space, requests, lambda state, attempt: self._lookup(state, keys, dtype, attempt)
        )

    async def search(self, space: RemoteSpace, query: Query, requests: Sequence[str] = ()) -> RemoteSearch:
        """The nearest rows of each vector; by key: of each key's own vector, without its own row, and nothing
        for unknown keys.

        Raises:
            DimensionMismatch, NonFiniteVectors, KeyTypeMismatch, InvalidRequest: as a reader does.
            ShardsUnanswered: as :meth:`lookup`.
        """
        keys = query.keys
        if keys is not None:
            return await self._at_one_state(
                space, requests, lambda state, attempt: self._search_by_key(state, keys, query, attempt)
            )
        queries = validate_vectors(query.vectors, space.dim).astype(np.float32, copy=False)
        return await self._at_one_state(
            space, requests, lambda state, attempt: self._search(state, queries, query.k, query, attempt)
        )

    def require(self, state: RemoteSpace, count: ShardCount, *, partial: bool) -> None:
        """Raise ShardsUnanswered if some shards did not answer and ``partial`` is false, or none did."""
        if count.missing and (not partial or count.answered == 0):
            raise _unanswered(state, count, self._deadline_seconds)

    async def _at_one_state(
        self,
        space: RemoteSpace,
        requests: Sequence[str],
        ask: Callable[[RemoteSpace, _Try], Awaitable[_AnswerT]],
    ) -> _AnswerT:
        until = time.monotonic() + self._deadline_seconds
        state = space
        for number in range(_ATTEMPTS):
            try:
                return await ask(state, _Try(until, number, requests))
            except _Moved as moved:
                if number == _ATTEMPTS - 1 or time.monotonic() >= until:
                    raise ShardsUnanswered(
                        f"the store nodes of {space.space} do not agree on a state just now: ask again."
                    ) from moved
                if moved.sequence is None:
                    found = await run_in_threadpool(self._routing.find, space.space)
                    if found is None:
                        raise ShardsUnanswered(
                            f"the shards of {space.space} were taken from all store nodes: ask again."
                        ) from moved
                    state = replace(found, sequence=max(found.sequence, state.sequence))
                else:
                    state = replace(state, sequence=moved.sequence)
        raise AssertionError("unreachable: the last attempt returns or raises")

    async def _lookup(
        self, state: RemoteSpace, keys: Keys, dtype: VectorDtype, attempt: _Try
    ) -> RemoteLookup:
        raw = keys if isinstance(keys, np.ndarray) else list(keys)
        owners = state.ranges.shard_of(parse_keys(raw, state.key_type))
        asked = np.flatnonzero(np.bincount(owners, minlength=len(state.routes))).tolist()
        by_node = _by_node(state, asked)
        parts, places = [], []
        for url, shards in by_node.items():
            alone = len(shards) == len(asked)
            mine = np.arange(len(keys)) if alone else np.flatnonzero(np.isin(owners, shards))
            parts.append(_Part(url, shards, encode_keys(keys if alone else select(keys, mine))))
            places.append(mine)
        bodies = await self._ask(state, "lookup", parts, attempt, f"&dtype={dtype}")
        missing = _count(asked, parts, bodies).missing
        results = [
            None if body is None else decode_lookup_raw(body, rows=len(mine), dim=state.dim, dtype=dtype)
            for mine, body in zip(places, bodies, strict=True)
        ]
        if len(results) == 1 and results[0] is not None and not missing:
            found, vectors = results[0]
            return RemoteLookup(found, np.ones(len(keys), np.bool_), vectors, owners, state, ())
        found, answered = np.zeros(len(keys), np.bool_), np.zeros(len(keys), np.bool_)
        vectors = np.zeros((len(keys), state.dim), dtype)
        for mine, result in zip(places, results, strict=True):
            if result is not None:
                found[mine], vectors[mine] = result
                answered[mine] = True
        return RemoteLookup(found, answered, vectors, owners, state, missing)

    async def _search(
        self, state: RemoteSpace, queries: NDArray[np.float32], k: int, query: Query, attempt: _Try
    ) -> RemoteSearch:
        asked = list(range(len(state.routes)))
        body = encode_vectors_raw(queries)
        parts = [_Part(url, shards, body) for url, shards in _by_node(state, asked).items()]
        more = SearchSetting(k, query.ef, query.recall, query.filter).text()
        bodies = await self._ask(state, "search", parts, attempt, more)
        hits = [
            decode_hits(answer, state.key_type, len(queries), k) for answer in bodies if answer is not None
        ]
        keys, scores = merged(hits, k) if hits else _nothing(state, len(queries), k)
        every = np.ones(len(queries), np.bool_)
        return RemoteSearch(keys, scores, every, every, state, _count(asked, parts, bodies))

    async def _search_by_key(
        self, state: RemoteSpace, keys: Keys, query: Query, attempt: _Try
    ) -> RemoteSearch:
        k = query.k
        own = await self._lookup(state, keys, "float32", attempt)
        known = np.flatnonzero(own.found)
        all_keys, all_scores = _nothing(state, len(keys), k)
        if len(known) == 0:
            return RemoteSearch(all_keys, all_scores, own.found, own.answered, state, own.shards)
        queries = own.vectors[known].astype(np.float32)
        # One more than a request may ask for, because each finds its own row.
        result = await self._search(state, queries, k + 1, query, attempt)
        hits, scores = without_own(result.keys, result.scores, own_keys(select(keys, known)), k)
        all_scores[known] = scores
        if isinstance(all_keys, np.ndarray):
            all_keys[known] = np.asarray(hits)
        else:
            for place, row in zip(known.tolist(), hits, strict=True):
                all_keys[place] = list(row)
        missing = tuple(sorted({*own.shards.missing, *result.shards.missing}))
        count = ShardCount(len(state.routes) - len(missing), len(state.routes), missing)
        return RemoteSearch(all_keys, all_scores, own.found, own.answered, state, count)

    async def _ask(
        self, state: RemoteSpace, verb: str, parts: Sequence[_Part], attempt: _Try, more: str = ""
    ) -> list[bytes | None]:
        """The answer of each node, None where none came in time.

        Raises:
            _Moved: a node cannot answer for the state, and all must be asked again.
        """
        tasks = [
            asyncio.ensure_future(
                self._connections.post(
                    part.url,
                    _target(ShardAsk(state.space, state.snapshot, state.sequence, part.shards), verb, more),
                    part.body,
                    attempt.requests,
                )
            )
            for part in parts
        ]
        if tasks:
            try:
                await asyncio.wait(tasks, timeout=max(0.0, attempt.until - time.monotonic()))
            finally:
                for task in tasks:
                    task.cancel()  # those that are done stay done
        answers = [_answer_of(task, part, attempt) for task, part in zip(tasks, parts, strict=True)]
        passed = [int(answer.body) for answer in answers if answer is not None and answer.status == PASSED]
        if passed:
            raise _Moved(max(passed))
        if attempt.number == 0 and any(answer is not None and answer.status == MISSING for answer in answers):
            raise _Moved(None)
        return [None if answer is None or answer.status == MISSING else answer.body for answer in answers]


@lru_cache(1024)
def _target(ask: ShardAsk, verb: str, more: str) -> str:
    return ask.target(verb, more)


def _answer_of(task: asyncio.Future[NodeAnswer], part: _Part, attempt: _Try) -> NodeAnswer | None:
    if task.cancelled() or not task.done():
        _log.warning("store node did not answer in time", **_named(part, attempt))
        return None
    try:
        answer = task.result()
    except NodeFailed as error:
        _log.warning("store node cannot be reached", reason=str(error), **_named(part, attempt))
        return None
    if answer.status == _REFUSED:
        raise error_from_problem(orjson.loads(answer.body))
    if answer.status not in (200, MISSING, PASSED):
        raise InternalError(f"a store node answered {answer.status}: {answer.body[:500]!r}")
    return answer


def _named(part: _Part, attempt: _Try) -> dict[str, Any]:
    """What a line of the log about a node tells; ids of requests as the node's own lines have them."""
    return {"url": part.url, "shards": part.shards, "request_id": ",".join(attempt.requests)}


def _by_node(state: RemoteSpace, shards: Sequence[int]) -> Mapping[str, tuple[int, ...]]:
    """The shards to ask of each node, by its URL; those that no node has are left out."""
    found: dict[str, tuple[int, ...]] = {}
    for shard in shards:
        url = state.routes[shard].url
        if url is not None:
            found[url] = (*found.get(url, ()), shard)
    return found


def _count(asked: Sequence[int], parts: Sequence[_Part], bodies: Sequence[bytes | None]) -> ShardCount:
    answered = {
        shard for part, body in zip(parts, bodies, strict=True) if body is not None for shard in part.shards
    }
    missing = tuple(shard for shard in asked if shard not in answered)
    return ShardCount(len(answered), len(asked), missing)


def _unanswered(state: RemoteSpace, count: ShardCount, deadline_seconds: float) -> ShardsUnanswered:
    where = {state.routes[shard].node or "nobody" for shard in count.missing}
    named = ", ".join(map(str, count.missing))
    return ShardsUnanswered(
        f"{count.answered} of {count.of} shards of {state.space} answered within {deadline_seconds:g} s; "
        f"missing: {named} (with {', '.join(sorted(where))}). Ask again, or take what there is with "
        "?allow_partial=true.",
        shards={"answered": count.answered, "of": count.of},
        missing=list(count.missing),
    )


def _nothing(state: RemoteSpace, queries: int, k: int) -> tuple[HitKeys, NDArray[np.float32]]:
    scores = np.full((queries, k), -np.inf, np.float32)
    if state.key_type == "int64":
        return np.full((queries, k), -1, np.int64), scores
    return [[None] * k for _ in range(queries)], scores
