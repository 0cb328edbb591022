"""Lookups and searches of spaces that store nodes serve, from body to answer."""

from __future__ import annotations

from collections.abc import Mapping

from bedplate.codecs import MediaType
from bedplate.errors import InvalidRequest
from bedplate.wire.shards import ShardsAnswered
from bedplate_services import lookups, searches
from bedplate_services.answers import Answer
from bedplate_services.directory import Located
from bedplate_services.settings import Settings
from bedplate_services.shards.connections import NodeConnections
from bedplate_services.shards.fan_out import FanOut, ShardCount
from bedplate_store.readers import K_MAX, LookupResult, SearchResult
from bedplate_store.shard_routing import RemoteSpace, ShardRouting
from bedplate_store.tracing import Tracing

ALLOW_PARTIAL = "allow_partial"
_TRUTH = {"true": True, "false": False}


class RemoteAnswers:
    """Belongs to one event loop."""

    def __init__(self, fan_out: FanOut) -> None:
        self._fan_out = fan_out

    async def lookup(
        self,
        located: Located,
        space: RemoteSpace,
        body: bytes,
        media: str,
        accept: MediaType,
        parameters: Mapping[str, str],
    ) -> Answer:
        """Raises what :func:`bedplate_services.lookups.answer` raises, and ShardsUnanswered."""
        keys = lookups.keys_of(body, media)
        found = await self._fan_out.lookup(
            space, keys, lookups.dtype_of(located, accept), partial=_partial(parameters)
        )
        result = LookupResult(found.found, found.vectors, found.state.snapshot, found.state.sequence)
        answered = found.answered if found.shards.missing else None
        return lookups.encode(
            located, keys, result, accept, answered=answered, shards=_document(found.shards)
        )

    async def search(
        self,
        located: Located,
        space: RemoteSpace,
        query: searches.Query,
        accept: MediaType,
        parameters: Mapping[str, str],
    ) -> Answer:
        """Raises what :func:`bedplate_services.searches.answer` raises, and ShardsUnanswered."""
        if not 1 <= query.k <= K_MAX:
            raise InvalidRequest(f"k is {query.k}: ask for 1 to {K_MAX} results.", k=query.k, k_max=K_MAX)
        found = await self._fan_out.search(space, query, partial=_partial(parameters))
        state = found.state
        result = SearchResult(found.keys, found.scores, found.found, state.snapshot, state.sequence)
        answered = found.answered if found.shards.missing else None
        return searches.encode(
            located, query, result, accept, answered=answered, shards=_document(found.shards)
        )


def remote_answers(
    routing: ShardRouting | None, settings: Settings, tracing: Tracing
) -> RemoteAnswers | None:
    """None where the settings hold no secret that store nodes know."""
    if routing is None or settings.shard_secret is None:
        return None
    connections = NodeConnections(settings.shard_secret.get_secret_value(), tracing.headers)
    return RemoteAnswers(FanOut(routing, connections, settings.shard_deadline_seconds))


def _partial(parameters: Mapping[str, str]) -> bool:
    text = parameters.get(ALLOW_PARTIAL, "false")
    if text not in _TRUTH:
        raise InvalidRequest(f"{ALLOW_PARTIAL}={text} is not allowed; use true or false.")
    return _TRUTH[text]


def _document(count: ShardCount) -> ShardsAnswered:
    return ShardsAnswered(answered=count.answered, of=count.of)
