"""What every module of routes shares."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, TypeVar

import structlog
from fastapi import Depends, Path, Request

from bedplate.references import NAME_PATTERN
from bedplate.wire.common import Page
from bedplate_services.composition import Platform

ItemT = TypeVar("ItemT")
URL_SECONDS = 3600


def _platform(request: Request) -> Platform:
    platform: Platform = request.app.state.platform
    return platform


async def _platform_dependency(request: Request) -> Platform:
    structlog.contextvars.bind_contextvars(**_named(request.path_params))
    return _platform(request)


def _named(parameters: Mapping[str, str]) -> dict[str, str]:
    """What the request is about, for the log."""
    found = {"space": parameters["space"]} if "space" in parameters else {}
    if parameters.get("id", "").startswith("job-"):
        found["job"] = parameters["id"]
    if "reference" in parameters:
        found["version"] = parameters["reference"]
    for owner, name in (("foundation", "version"), ("expert", "expert")):
        if owner in parameters:
            number = parameters.get("version") or parameters.get("alias")
            found[name] = parameters[owner] if number is None else f"{parameters[owner]}@{number}"
    return found


House = Annotated[Platform, Depends(_platform_dependency)]
"""Parameter of a route: databases, objects, clock."""

PathName = Annotated[str, Path(pattern=NAME_PATTERN)]
PathNumber = Annotated[int, Path(alias="version", ge=1, le=2**31 - 1)]
"""A version's number."""


def page(items: Sequence[ItemT], following: str | None = None) -> Page[ItemT]:
    return Page(items=list(items), next=following)


def signed_url(house: Platform, key: str) -> str:
    """A URL that reads the object without a token for ``URL_SECONDS``: the object store's own, else ours."""
    expires = int(house.now().timestamp()) + URL_SECONDS
    return house.objects.signed_url(key, URL_SECONDS) or house.signer.url(key, expires=expires)


def stored_path(house: Platform, key: str) -> str | None:
    """Where the object's file lies on this machine, for clients that see the same file system; None where it
    lies elsewhere, or callers on other machines need not know.
    """
    local = house.objects.local_path(key) if house.settings.local_paths else None
    return None if local is None else str(local.absolute())
