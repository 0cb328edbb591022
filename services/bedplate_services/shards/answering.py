"""Lookups and searches of spaces that store nodes serve, from body to answer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from bedplate.codecs import MediaType
from bedplate.errors import InvalidRequest
from bedplate.wire.shards import ShardsAnswered
from bedplate_services import lookups, searches
from bedplate_services.answers import Answer
from bedplate_services.directory import Located
from bedplate_services.settings import Settings
from bedplate_services.shards.connections import NodeConnections
from bedplate_services.shards.fan_out import FanOut, RemoteLookup, RemoteSearch, ShardCount
from bedplate_services.shards.turns import RemoteTurns
from bedplate_services.tracing import traced_calls
from bedplate_store.readers import K_MAX, LookupResult, SearchResult
from bedplate_store.shard_routing import RemoteSpace, ShardRouting
from bedplate_store.tracing import Tracing

ALLOW_PARTIAL = "allow_partial"
_TRUTH = {"true": True, "false": False}


class RemoteAnswers:
    """Belongs to one event loop.

    Args:
        together: whether requests of one turn go to the nodes together; false: each has a trace of its own.

    Attributes:
        turns: asks the nodes.
    """

    def __init__(self, fan_out: FanOut, *, together: bool = True) -> None:
        self._fan_out = fan_out
        self._together = together
        self.turns = RemoteTurns(fan_out)

    async def lookup(
        self,
        located: Located,
        space: RemoteSpace,
        body: bytes,
        media: str,
        accept: MediaType,
        parameters: Mapping[str, str],
        request_id: str,
    ) -> Answer:
        """Raises what :func:`bedplate_services.lookups.answer` raises, and ShardsUnanswered."""
        keys, dtype, partial = (
            lookups.keys_of(body, media),
            lookups.dtype_of(located, accept),
            _partial(parameters),
        )
        if self._together:
            answer: asyncio.Future[RemoteLookup] = asyncio.get_running_loop().create_future()
            self.turns.lookup(space, keys, dtype, request_id, _settles(answer))
            found = await answer
        else:
            found = await self._fan_out.lookup(space, keys, dtype, [request_id])
        self.require(found, partial=partial)
        answered = found.answered if found.missing else None
        return lookups.encode(
            located, keys, lookup_result(found), accept, answered=answered, shards=_document(found.shards)
        )

    async def search(
        self,
        located: Located,
        space: RemoteSpace,
        query: searches.Query,
        accept: MediaType,
        parameters: Mapping[str, str],
        request_id: str,
    ) -> Answer:
        """Raises what :func:`bedplate_services.searches.answer` raises, and ShardsUnanswered."""
        if not 1 <= query.k <= K_MAX:
            raise InvalidRequest(f"k is {query.k}: ask for 1 to {K_MAX} results.", k=query.k, k_max=K_MAX)
        partial = _partial(parameters)
        if self._together and query.vectors is not None:
            answer: asyncio.Future[RemoteSearch] = asyncio.get_running_loop().create_future()
            self.turns.search(space, query, request_id, _settles(answer))
            found = await answer
        else:
            found = await self._fan_out.search(space, query, [request_id])
        self.require(found, partial=partial)
        answered = found.answered if found.shards.missing else None
        return searches.encode(
            located, query, search_result(found), accept, answered=answered, shards=_document(found.shards)
        )

    def require(self, found: RemoteLookup | RemoteSearch, *, partial: bool) -> None:
        """Raises ShardsUnanswered where not enough shards answered."""
        self._fan_out.require(found.state, found.shards, partial=partial)


def lookup_result(found: RemoteLookup) -> LookupResult:
    """As of a reader in this process."""
    return LookupResult(found.found, found.vectors, found.state.snapshot, found.state.sequence)


def search_result(found: RemoteSearch) -> SearchResult:
    """As of a reader in this process."""
    return SearchResult(found.keys, found.scores, found.found, found.state.snapshot, found.state.sequence)


def remote_answers(
    routing: ShardRouting | None, settings: Settings, tracing: Tracing
) -> RemoteAnswers | None:
    """None where the settings hold no secret that store nodes know."""
    if routing is None or settings.shard_secret is None:
        return None
    connections = NodeConnections(settings.shard_secret.get_secret_value(), tracing.headers)
    fan_out = FanOut(routing, traced_calls(connections, tracing), settings.shard_deadline_seconds)
    return RemoteAnswers(fan_out, together=not tracing.on)


def _settles(answer: asyncio.Future[Any]) -> Callable[[Any], None]:
    def done(outcome: Any) -> None:
        if answer.done():
            return  # cancelled
        if isinstance(outcome, Exception):
            answer.set_exception(outcome)
        else:
            answer.set_result(outcome)

    return done


def _partial(parameters: Mapping[str, str]) -> bool:
    text = parameters.get(ALLOW_PARTIAL, "false")
    if text not in _TRUTH:
        raise InvalidRequest(f"{ALLOW_PARTIAL}={text} is not allowed; use true or false.")
    return _TRUTH[text]


def _document(count: ShardCount) -> ShardsAnswered:
    return ShardsAnswered(answered=count.answered, of=count.of)
