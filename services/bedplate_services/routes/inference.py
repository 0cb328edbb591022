"""Target-aware embeddings and ranking."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Annotated, Any, TypeVar

import numpy as np
import orjson
import structlog
from fastapi import APIRouter, Depends, Request, Response
from starlette.concurrency import run_in_threadpool

from bedplate.codecs import ARROW, JSON, TaeColumns, encode_tae_arrow, negotiate
from bedplate.errors import BatchTooLarge, InvalidRequest, NotFound, VersionNotReady
from bedplate.wire.serving import (
    RankAnswer,
    RankRequest,
    TaeAnswer,
    TaeBatch,
    TaeBatchAnswer,
    TaeRequest,
)
from bedplate_registry import surfaces
from bedplate_registry.principals import Principal
from bedplate_services.auth import Caller
from bedplate_services.composition import Platform
from bedplate_services.openapi import arrow_answer, problem_responses
from bedplate_services.routes.common import House, PathName
from bedplate_services.serving.batching import MicroBatcher
from bedplate_services.serving.models import LoadedExpert, LoadedFoundation, ModelKeeper, ModelSet
from bedplate_services.serving.passes import Asked, Served
from bedplate_services.serving.polls import SharedPolls
from bedplate_store.times import instant, microseconds

router = APIRouter(prefix="/v1", tags=["inference"])
FoundT = TypeVar("FoundT")
_FUTURE_TOLERANCE = timedelta(seconds=60)
MAXIMUM_BATCH_CANDIDATES = 50_000
"""Over all requests of a batch: their TAE are in memory together, several times over as JSON."""
_COLUMNS = "request_id, item, position, and tae:core@7, prediction:core@7 for each version"


@dataclass(frozen=True)
class Serving:
    """What the inference routes need beside the platform."""

    keeper: ModelKeeper
    polls: SharedPolls
    batcher: MicroBatcher[Asked, Served]


async def _from_models(serving: Serving, ask: Callable[[ModelSet], FoundT]) -> FoundT:
    """What ``ask`` finds in the models. Where they lack it, the registry may have moved since it was last
    polled: it is followed at once, so that what was promoted a moment ago already answers.
    """
    try:
        return ask(serving.keeper.current)
    except (NotFound, VersionNotReady):
        await serving.polls.poll()
        return ask(serving.keeper.current)


async def _serving(request: Request) -> Serving:
    serving: Serving = request.app.state.serving
    return serving


Models = Annotated[Serving, Depends(_serving)]


@router.post(
    "/tae",
    summary="Compute the TAE of every candidate",
    response_model=TaeAnswer,
    responses={**arrow_answer(_COLUMNS), **problem_responses(404, 406, 409)},
)
async def compute_tae(
    house: House, models: Models, caller: Caller, request: Request, document: TaeRequest
) -> Response:
    """For every active version, or the `versions` asked for; logged with the impression before the
    answer leaves.
    Logging is for the owner of the surface."""
    media = negotiate(request.headers.get("accept"), (JSON, ARROW)).name
    asked = await _asked(house, models, caller, document)
    served = await models.batcher.submit(asked)
    if media == ARROW:
        return Response(encode_tae_arrow([_columns(served, document)]), media_type=ARROW)
    return _json(_document(served, document))


@router.post(
    "/tae/batch",
    summary="Compute the TAE of several requests",
    response_model=TaeBatchAnswer,
    responses={**arrow_answer(_COLUMNS), **problem_responses(404, 406, 409)},
)
async def compute_tae_batch(
    house: House, models: Models, caller: Caller, request: Request, document: TaeBatch
) -> Response:
    """Each is answered and logged as if it had come alone; an error of one is the answer to all.
    50,000 candidates at most over all of them."""
    media = negotiate(request.headers.get("accept"), (JSON, ARROW)).name
    candidates = sum(len(one.candidates) for one in document.requests)
    if candidates > MAXIMUM_BATCH_CANDIDATES:
        raise BatchTooLarge(
            f"The batch has {candidates:,} candidates; send {MAXIMUM_BATCH_CANDIDATES:,} at most at once."
        )
    asked = [await _asked(house, models, caller, one) for one in document.requests]
    served = await models.batcher.submit_all(asked)
    pairs = list(zip(served, document.requests, strict=True))
    if media == ARROW:
        return Response(encode_tae_arrow([_columns(*pair) for pair in pairs]), media_type=ARROW)
    return _json({"answers": [_document(*pair) for pair in pairs]})


@router.post(
    "/surfaces/{surface}/rank",
    summary="Rank candidates with the surface's expert",
    response_model=RankAnswer,
    responses=problem_responses(409),
)
async def rank(
    house: House, models: Models, caller: Caller, surface: PathName, document: RankRequest
) -> Response:
    """The serving version of the expert answers, on the one foundation version it is pinned to. With
    `log` the TAE of all active versions are logged; logging is for the owner of the surface."""
    await _check_surface(house, models.keeper.current, caller, surface, log=document.log)
    expert, foundations = await _from_models(
        models, lambda current: _ranking_models(current, surface, document)
    )
    asked = Asked(
        request_id=document.request_id or uuid.uuid4().hex,
        user=document.user,
        surface=surface,
        candidates=document.candidates,
        served_at_us=_moment(house, document.at),
        foundations=foundations,
        expert=expert,
        log=document.log,
    )
    served = await models.batcher.submit(_plain(asked))
    assert served.scored is not None
    answer = {
        "request_id": asked.request_id,
        "surface": surface,
        "expert": expert.label,
        "foundation_version": expert.wanted.pinned,
        "snapshots": served.scored.snapshots,
        "served_at": instant(asked.served_at_us).isoformat(),
        "scores": served.scored.scores,
        "order": np.argsort(-served.scored.scores, kind="stable"),
    }
    return _json(answer)


def _ranking_models(
    models: ModelSet, surface: str, document: RankRequest
) -> tuple[LoadedExpert, list[LoadedFoundation]]:
    """The expert and the versions it takes: the pinned one first, then, if it is logged, all active ones."""
    expert = models.expert(surface, document.expert)
    foundations = [models.foundation(expert.wanted.pinned)] if expert.wanted.pinned else []
    if document.log and models.active:
        foundations += [one for one in models.chosen(None) if one not in foundations]
    return expert, foundations


async def _asked(house: Platform, models: Serving, caller: Principal, document: TaeRequest) -> Asked:
    await _check_surface(house, models.keeper.current, caller, document.surface, log=document.log)
    foundations = await _from_models(models, lambda current: current.chosen(document.versions))
    return _plain(
        Asked(
            request_id=document.request_id or uuid.uuid4().hex,
            user=document.user,
            surface=document.surface,
            candidates=document.candidates,
            served_at_us=_moment(house, document.at),
            foundations=foundations,
            expert=None,
            log=document.log,
        )
    )


def _plain(asked: Asked) -> Asked:
    """The request, if its texts can be stored; from now on the log names its versions. Raises
    InvalidRequest for NUL, which PostgreSQL cannot hold.
    """
    structlog.contextvars.bind_contextvars(version=",".join(one.label for one in asked.foundations))
    if asked.expert is not None:
        structlog.contextvars.bind_contextvars(expert=asked.expert.label)
    if any("\x00" in text for text in (asked.user, asked.request_id, *asked.candidates)):
        raise InvalidRequest("A key or the request id holds a NUL character; leave it out.")
    return asked


async def _check_surface(
    house: Platform, models: ModelSet, caller: Principal, surface: str, *, log: bool
) -> None:
    """The surface exists, and the caller may log impressions on it.

    Raises:
        NotFound, Forbidden.
    """

    def ask() -> str:
        with house.registry.read() as session:
            return surfaces.owner(session, surface)

    owner = models.owners.get(surface)
    if owner is None:
        owner = await run_in_threadpool(ask)
    if log:
        caller.require_owner(owner)


def _moment(house: Platform, at: datetime | None) -> int:
    """Microseconds UTC. Raises InvalidRequest for a time to come: its history is not complete yet."""
    now = house.now()
    if at is None:
        return microseconds(now)
    if at > now + _FUTURE_TOLERANCE:
        raise InvalidRequest(f"at is {at.isoformat()}, which is still to come; leave it out to mean now.")
    return microseconds(at)


def _columns(served: Served, document: TaeRequest) -> TaeColumns:
    return TaeColumns(
        request_id=served.asked.request_id,
        served_at=instant(served.asked.served_at_us),
        history_events=served.history_events,
        items=list(served.asked.candidates),
        vectors=served.tae if document.include_vectors else {},
        predictions=served.predictions,
    )


def _document(served: Served, document: TaeRequest) -> dict[str, Any]:
    return {
        "request_id": served.asked.request_id,
        "served_at": instant(served.asked.served_at_us).isoformat(),
        "history_events": served.history_events,
        "versions": [
            {
                "version": label,
                "dim": vectors.shape[1],
                "vectors": vectors.astype(np.float32) if document.include_vectors else None,
                "predictions": served.predictions[label],
            }
            for label, vectors in served.tae.items()
        ],
    }


def _json(document: dict[str, Any]) -> Response:
    return Response(orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY), media_type=JSON)
