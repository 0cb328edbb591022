"""What operations ask their runner to do; ``steps.py`` says how they are run."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import httpx

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Request:
    """One HTTP request.

    Attributes:
        url: a path below the platform's URL, or an absolute URL.
        idempotent: whether sending it twice does no more than sending it once; only such a one is retried.
        timeout_seconds: for an answer; None: the client's.
        authenticated: whether the token goes with it; never to signed URLs, which may lie on another host.
        hot: a small, frequent read of the platform; the synchronous client sends it at the least cost.
    """

    method: str
    url: str
    params: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    content: bytes | None = None
    idempotent: bool = False
    authenticated: bool = True
    timeout_seconds: float | None = None
    hot: bool = False
    request_id: str = field(default_factory=lambda: uuid.uuid4().hex)


@dataclass(frozen=True, slots=True)
class Send:
    """Effect: send the request; its result is the whole ``httpx.Response``."""

    request: Request


class Sink(Protocol):
    """Where the body of an answer goes: enough to begin anew or to go on, as the answer's status says, and
    memory of its own to read into, so that no byte is copied on the way.
    """

    def begin(self, response: httpx.Response) -> None:
        """An answer of success has begun."""

    def room(self) -> memoryview:
        """Where the next bytes of its body go; never empty."""

    def filled(self, count: int) -> None:
        """So many bytes are in the room last given."""


@dataclass(frozen=True, slots=True)
class Save:
    """Effect: stream the answer's body into ``sink``; its result is the response, read only if an error."""

    request: Request
    sink: Sink


@dataclass(frozen=True, slots=True)
class Incoming:
    """An answer whose body is still coming; ``body`` is one of ``bodies.py``, as the runner is."""

    response: httpx.Response
    body: Any


@dataclass(frozen=True, slots=True)
class Open:
    """Effect: send the request; its result is ``Incoming``, its response read only if an error."""

    request: Request


@dataclass(frozen=True, slots=True)
class Read:
    """Effect: the next bytes of the body into ``room``; its result is how many, 0 at the end."""

    incoming: Incoming
    room: memoryview


@dataclass(frozen=True, slots=True)
class Together:
    """Effect: run several at the same time; its result is the list of theirs. The first error ends it."""

    steps: Sequence[Generator[Any, Any, Any]]


@dataclass(frozen=True, slots=True)
class Give:
    """Effect: hand the value to the caller; only in operations made with ``streams.streamed``."""

    value: Any


@dataclass(frozen=True, slots=True)
class Pause:
    """Effect: wait."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Blocking:
    """Effect: call a function that reads or writes files; the asynchronous client does so in a thread."""

    function: Callable[[], Any]


Effect = Send | Save | Open | Read | Together | Pause | Blocking | Give
Steps = Generator[Effect, Any, T]
