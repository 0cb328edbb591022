"""What the Gateway API takes of an HTTPRoute (gateway.networking.k8s.io/v1), as far as the chart renders one.

No package brings a model of it. Fields and bounds are those of the Gateway API's specification; a field that
the chart begins to render is added here.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

DOMAIN = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*"
Port = Annotated[int, Field(ge=1, le=65535)]
Label = Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", max_length=63)]
Name = Annotated[str, Field(min_length=1, max_length=253)]
Group = Annotated[str, Field(pattern=rf"^$|^{DOMAIN}$", max_length=253)]
Kind = Annotated[str, Field(pattern=r"^[a-zA-Z]([-a-zA-Z0-9]*[a-zA-Z0-9])?$", max_length=63)]
Host = Annotated[str, Field(pattern=rf"^(\*\.)?{DOMAIN}$", min_length=1, max_length=253)]


class _Strict(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, extra="forbid", strict=True)


class ParentReference(_Strict):
    """The Gateway, or a listener of it, that a route belongs to."""

    group: Group = "gateway.networking.k8s.io"
    kind: Kind = "Gateway"
    namespace: Label | None = None
    name: Name
    section_name: Annotated[str, Field(pattern=rf"^{DOMAIN}$", max_length=253)] | None = None
    port: Port | None = None


class BackendReference(_Strict):
    """Where requests go: a port of a Service of the route's namespace."""

    name: Name
    port: Port  # demanded wherever the backend is a Service


class Rule(_Strict):
    """Of the chart's: without a match, so of all paths."""

    backend_refs: Annotated[list[BackendReference], Field(min_length=1, max_length=16)]


class RouteSpec(_Strict):
    parent_refs: Annotated[list[ParentReference], Field(min_length=1, max_length=32)]
    hostnames: Annotated[list[Host], Field(min_length=1, max_length=16)]
    rules: Annotated[list[Rule], Field(min_length=1, max_length=16)]


class Metadata(_Strict):
    name: Name
    labels: dict[str, str]
    annotations: dict[str, str] | None = None


class HTTPRoute(_Strict):
    api_version: Literal["gateway.networking.k8s.io/v1"]
    kind: Literal["HTTPRoute"]
    metadata: Metadata
    spec: RouteSpec
