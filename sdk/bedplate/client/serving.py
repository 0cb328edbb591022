"""The inference service: target-aware embeddings and ranking."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import httpx
from pydantic import BaseModel

from bedplate.client.answers import build, read_document
from bedplate.client.effects import Steps
from bedplate.client.requests import get, json_request, path
from bedplate.client.steps import AsyncRunner, Namespace, RunnerT, SyncRunner, exchange, operation
from bedplate.codecs import ARROW, JSON, TaeColumns, decode_tae_arrow
from bedplate.errors import InternalError, InvalidRequest, Unavailable
from bedplate.wire.serving import Endpoints, RankAnswer, RankRequest, TaeBatch, TaeRequest

_INFERENCE = "inference_url"


def endpoints() -> Steps[Endpoints]:
    """Where the parts of the platform answer."""
    return get(path("endpoints"), Endpoints)


def _ask(
    cache: dict[str, Any], url: str, body: BaseModel, *, accept: str, idempotent: bool
) -> Steps[httpx.Response]:
    """Send to the inference service; its URL is asked for once, and again after it could not be reached."""
    if _INFERENCE not in cache:
        cache[_INFERENCE] = (yield from endpoints()).inference.rstrip("/")
    request = json_request("POST", cache[_INFERENCE] + url, body, idempotent=idempotent, accept=accept)
    try:
        return (yield from exchange(request))
    except Unavailable:
        cache.pop(_INFERENCE, None)
        raise


def _tae(
    cache: dict[str, Any], url: str, body: BaseModel, requests: Sequence[TaeRequest]
) -> Steps[list[TaeColumns]]:
    # A logged request sent twice could be logged with two contents, so only unlogged ones are retried.
    unlogged = not any(request.log for request in requests)
    response = yield from _ask(cache, url, body, accept=ARROW, idempotent=unlogged)
    answers = decode_tae_arrow(response.content)
    if len(answers) != len(requests):
        raise InternalError(f"{len(requests)} requests for TAE got {len(answers)} answers.")
    return answers


class Tae(Namespace[RunnerT]):
    """Target-aware embeddings: what a foundation knows of a user about each candidate."""

    @operation
    def compute(
        self,
        user: str | TaeRequest,
        surface: str = "",
        candidates: Sequence[str] = (),
        *,
        at: datetime | None = None,
        versions: Sequence[str] | None = None,
        request_id: str | None = None,
        log: bool = True,
        include_vectors: bool = True,
    ) -> Steps[TaeColumns]:
        """The TAE [M, D] of every candidate for every active version, and log them with the impression.

        Args:
            user: the user, or the whole request as a document.
            at: only events before it are seen; None: now.
            versions: e.g. ``["core@7"]``; None: every active version.
            request_id: outcomes refer to it; None: one is made.
        """
        if isinstance(user, TaeRequest):
            body = user
        else:
            body = build(
                TaeRequest,
                user=user,
                surface=surface,
                candidates=list(candidates),
                at=at,
                versions=None if versions is None else list(versions),
                request_id=request_id,
                log=log,
                include_vectors=include_vectors,
            )
        answers = yield from _tae(self.runner.cache, path("tae"), body, [body])
        return answers[0]

    @operation
    def batch(self, requests: Sequence[TaeRequest]) -> Steps[list[TaeColumns]]:
        """Several requests in one call (256 at most); each is answered and logged as if it had come alone."""
        body = build(TaeBatch, requests=list(requests))
        return _tae(self.runner.cache, path("tae", "batch"), body, body.requests)


def rank(runner: SyncRunner | AsyncRunner, surface: str, body: RankRequest) -> Steps[RankAnswer]:
    """POST /v1/surfaces/{surface}/rank at the inference service."""
    url = path("surfaces", surface, "rank")
    response = yield from _ask(runner.cache, url, body, accept=JSON, idempotent=not body.log)
    return read_document(RankAnswer, response)


def rank_request(
    user: str | RankRequest, candidates: Sequence[str] | None, members: dict[str, Any]
) -> RankRequest:
    """The document of a ranking, from the user and candidates or from the document itself."""
    if isinstance(user, RankRequest):
        return user
    if candidates is None:
        raise InvalidRequest("Give the candidates to rank.")
    return build(RankRequest, user=user, candidates=list(candidates), **members)
