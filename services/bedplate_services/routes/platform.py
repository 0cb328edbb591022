"""Who am I, where is everything, is it up."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import version

from fastapi import APIRouter, Request, Response
from pydantic import ConfigDict
from sqlalchemy.exc import SQLAlchemyError

from bedplate.databases import SchemaRefused
from bedplate.errors import Unavailable
from bedplate.wire.common import WireModel
from bedplate.wire.registry import Role
from bedplate.wire.serving import Endpoints
from bedplate_services import problems
from bedplate_services.auth import Caller
from bedplate_services.composition import Platform
from bedplate_services.draining import Draining
from bedplate_services.logging import get_logger
from bedplate_services.openapi import problem_responses
from bedplate_services.routes.common import House

router = APIRouter(tags=["platform"])
_log = get_logger(__name__)
_METRICS = {"type": "string", "description": "one line a metric and set of labels, as Prometheus scrapes it"}


class WhoAmI(WireModel):
    """The team behind the token that was sent."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"team": "feed-team", "role": "member"}]})
    team: str
    role: Role


class Health(WireModel):
    """The service answers."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"status": "ready"}]})
    status: str


@router.get("/v1/whoami", summary="Tell whose token this is")
def whoami(caller: Caller) -> WhoAmI:
    return WhoAmI(team=caller.team, role=caller.role)


@router.get("/v1/endpoints", summary="Tell where the parts of the platform answer")
def endpoints(house: House) -> Endpoints:
    """Needs no token."""
    settings = house.settings
    return Endpoints(
        registry=settings.api_base_url,
        store=settings.api_base_url,
        inference=settings.inference_base_url,
        version=version("bedplate"),
    )


def health_routes(check: Callable[[], None], draining: Draining) -> APIRouter:
    """/healthz, /readyz and /metrics of one service.

    Args:
        check: raises Unavailable, saying what is missing, while the service cannot answer its requests.
        draining: once begun, the service is not ready any more.
    """
    health = APIRouter(tags=["platform"])

    @health.get("/healthz", summary="The process is alive")
    async def healthz() -> Health:
        return Health(status="alive")

    @health.get(
        "/readyz",
        summary="The service can answer its requests",
        response_model=Health,
        responses=problem_responses(503),
    )
    def readyz(request: Request) -> Health | Response:
        try:
            refuse_if_draining(draining)
            check()
        except Unavailable as missing:
            # A process that starts or ends is asked every few seconds, and has not failed.
            _log.info("not ready", reason=missing.detail, cause=missing.__cause__ and str(missing.__cause__))
            return problems.response(missing, request.scope)
        return Health(status="ready")

    @health.get(
        "/metrics",
        summary="Metrics in Prometheus' text format",
        response_class=Response,
        responses={200: {"content": {"text/plain": {"schema": _METRICS}}}},
    )
    def metrics(house: House) -> Response:
        body, content_type = house.metrics.render()
        return Response(body, media_type=content_type)

    return health


def refuse_if_draining(draining: Draining) -> None:
    """Raises Unavailable once the process was told to stop."""
    if draining.begun:
        raise Unavailable("This process was told to stop and takes its leave; ask another one.")


class ApiReadiness:
    """Whether the API may be asked: databases with the right schema answer, and the spaces that others serve
    are open here, which the others know.

    Once it may, it may for good. A database that is away later concerns all replicas alike: to take them all
    out would turn their 503 into refused connections, and end the lookups that need no database.
    """

    def __init__(self, platform: Platform) -> None:
        self._platform = platform
        self._reached = False

    def check(self) -> None:
        """Raises Unavailable, saying what is missing."""
        if self._reached:
            return
        check_databases(self._platform)
        if not self._platform.readers.looked.is_set() or not self._platform.announcer.told:
            raise Unavailable("The spaces that other processes serve are still being opened here.")
        self._reached = True


def check_databases(platform: Platform) -> None:
    """Raises Unavailable unless both databases answer and their schema is new enough."""
    for database in (platform.registry, platform.store):
        try:
            database.check_revision()
        except SchemaRefused as refused:
            raise Unavailable(refused.detail) from refused
        except SQLAlchemyError as error:
            raise Unavailable(f"The {database.history.name} database does not answer.") from error
