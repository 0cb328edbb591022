"""How an operation is written once and run by both clients.

An operation is a generator that yields the effects it needs (send a request, save an answer to a file, pause,
do blocking work) and returns its result. ``SyncRunner`` performs them with httpx.Client, ``AsyncRunner`` with
httpx.AsyncClient; nothing else differs between ``Client`` and ``AsyncClient``.
"""

from __future__ import annotations

import functools
import uuid
from collections.abc import Callable, Coroutine, Generator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Concatenate, Generic, ParamSpec, Self, TypeVar, overload

import httpx

from bedplate.client.answers import error_of
from bedplate.errors import Unavailable

T = TypeVar("T")
P = ParamSpec("P")

RETRY_DELAYS_SECONDS = (0.1, 0.4, 1.6)
MAXIMUM_RETRY_AFTER_SECONDS = 10.0
RETRIED_STATUS = 503


@dataclass(frozen=True, slots=True)
class Request:
    """One HTTP request.

    Attributes:
        url: a path below the platform's URL, or an absolute URL.
        idempotent: whether sending it twice does no more than sending it once; only such a one is retried.
        timeout_seconds: for an answer; None: the client's.
        authenticated: whether the token goes with it; never to signed URLs, which may lie on another host.
    """

    method: str
    url: str
    params: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    content: bytes | None = None
    idempotent: bool = False
    authenticated: bool = True
    timeout_seconds: float | None = None
    request_id: str = field(default_factory=lambda: uuid.uuid4().hex)


@dataclass(frozen=True, slots=True)
class Send:
    """Effect: send the request; its result is the whole ``httpx.Response``."""

    request: Request


@dataclass(frozen=True, slots=True)
class Save:
    """Effect: stream the answer's body into ``path``; its result is the response, read only if an error."""

    request: Request
    path: Path
    advance: Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Pause:
    """Effect: wait."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Blocking:
    """Effect: call a function that reads or writes files; the asynchronous client does so in a thread."""

    function: Callable[[], Any]


Effect = Send | Save | Pause | Blocking
Steps = Generator[Effect, Any, T]


def blocking(function: Callable[[], T]) -> Steps[T]:
    """Do file work outside the event loop and return what it returns."""
    result: T = yield Blocking(function)
    return result


def exchange(request: Request) -> Steps[httpx.Response]:
    """Send ``request``, an idempotent one again where the connection broke or the answer was 503.

    Raises:
        BedplateError: the error that the answer describes, or Unavailable without an answer.
    """

    def attempt() -> Steps[httpx.Response]:
        response: httpx.Response = yield Send(request)
        return response

    return (yield from retried(request, attempt))


def saved(request: Request, path: Path, advance: Callable[[int], None]) -> Steps[None]:
    """Stream the answer to ``request`` into ``path``, from the beginning again after a broken connection."""

    def attempt() -> Steps[httpx.Response]:
        response: httpx.Response = yield Save(request, path, advance)
        return response

    yield from retried(request, attempt)


def retried(request: Request, attempt: Callable[[], Steps[httpx.Response]]) -> Steps[httpx.Response]:
    """Run ``attempt`` until it answers with success, the error is final, or the delays are used up."""
    delays = RETRY_DELAYS_SECONDS if request.idempotent else ()
    for number in range(len(delays) + 1):
        last = number == len(delays)
        try:
            response = yield from attempt()
        except Unavailable:
            if last:
                raise
            yield Pause(delays[number])
            continue
        if response.status_code < 400:
            return response
        if last or response.status_code != RETRIED_STATUS:
            raise error_of(response)
        yield Pause(_retry_after(response, delays[number]))
    raise AssertionError("the last attempt returns or raises")


def _retry_after(response: httpx.Response, default: float) -> float:
    try:
        asked = float(response.headers.get("retry-after", default))
    except ValueError:  # the date form of the header
        return default
    return min(max(asked, 0.0), MAXIMUM_RETRY_AFTER_SECONDS)


class SyncRunner:
    """Performs effects with httpx.Client."""

    def __init__(self, http: httpx.Client, sleep: Callable[[float], None]) -> None:
        self.http = http
        self._sleep = sleep
        self.cache: dict[str, Any] = {}

    def run(self, steps: Steps[T]) -> T:
        try:
            effect = next(steps)
            while True:
                try:
                    result = self._perform(effect)
                except Exception as error:  # noqa: BLE001  # handed to the operation, which handles or raises it
                    effect = steps.throw(error)
                else:
                    effect = steps.send(result)
        except StopIteration as stop:
            value: T = stop.value
            return value

    def _perform(self, effect: Effect) -> Any:
        if isinstance(effect, Pause):
            return self._sleep(effect.seconds)
        if isinstance(effect, Blocking):
            return effect.function()
        request = prepared(self.http, effect.request)
        try:
            if isinstance(effect, Send):
                return self.http.send(request)
            response = self.http.send(request, stream=True)
            try:
                if response.status_code >= 400:
                    response.read()
                    return response
                with effect.path.open("wb") as file:
                    for chunk in response.iter_bytes():
                        file.write(chunk)
                        effect.advance(len(chunk))
                return response
            finally:
                response.close()
        except httpx.TransportError as error:
            raise unreachable(request, error) from error


class AsyncRunner:
    """Performs effects with httpx.AsyncClient."""

    def __init__(
        self,
        http: httpx.AsyncClient,
        sleep: Callable[[float], Coroutine[Any, Any, None]],
        in_thread: Callable[[Callable[[], Any]], Coroutine[Any, Any, Any]],
    ) -> None:
        self.http = http
        self._sleep = sleep
        self._in_thread = in_thread
        self.cache: dict[str, Any] = {}

    async def run(self, steps: Steps[T]) -> T:
        try:
            effect = next(steps)
            while True:
                try:
                    result = await self._perform(effect)
                except Exception as error:  # noqa: BLE001  # handed to the operation, which handles or raises it
                    effect = steps.throw(error)
                else:
                    effect = steps.send(result)
        except StopIteration as stop:
            value: T = stop.value
            return value

    async def _perform(self, effect: Effect) -> Any:
        if isinstance(effect, Pause):
            return await self._sleep(effect.seconds)
        if isinstance(effect, Blocking):
            return await self._in_thread(effect.function)
        request = prepared(self.http, effect.request)
        try:
            if isinstance(effect, Send):
                return await self.http.send(request)
            response = await self.http.send(request, stream=True)
            try:
                if response.status_code >= 400:
                    await response.aread()
                    return response
                with effect.path.open("wb") as file:  # chunks of some KiB into the page cache
                    async for chunk in response.aiter_bytes():
                        file.write(chunk)
                        effect.advance(len(chunk))
                return response
            finally:
                await response.aclose()
        except httpx.TransportError as error:
            raise unreachable(request, error) from error


def prepared(http: httpx.Client | httpx.AsyncClient, request: Request) -> httpx.Request:
    """The httpx request, with its id; the token is taken off where it must not go."""
    built = http.build_request(
        request.method,
        request.url,
        params=dict(request.params) or None,
        headers={"x-request-id": request.request_id, **request.headers},
        content=request.content,
        timeout=request.timeout_seconds or httpx.USE_CLIENT_DEFAULT,
    )
    if not request.authenticated:
        built.headers.pop("authorization", None)
    return built


def unreachable(request: httpx.Request, error: httpx.TransportError) -> Unavailable:
    """Unavailable that tells where nobody answered and what to do about it."""
    where = f"{request.url.scheme}://{request.url.netloc.decode()}"
    trouble = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    mended = Unavailable(
        f"No answer from {where} ({trouble}). Start the platform with `bedplate up`, or point BEDPLATE_URL "
        "or --url at a running one."
    )
    mended.request_id = request.headers.get("x-request-id")
    return mended


RunnerT = TypeVar("RunnerT", bound=SyncRunner | AsyncRunner)


class Namespace(Generic[RunnerT]):
    """A group of operations, e.g. ``client.versions``."""

    def __init__(self, runner: RunnerT) -> None:
        self.runner = runner


class operation(Generic[P, T]):  # noqa: N801  # used as a decorator, like property
    """Makes a generator method callable: ``Client`` gives the result, ``AsyncClient`` a coroutine."""

    def __init__(self, function: Callable[Concatenate[Any, P], Steps[T]]) -> None:
        self.function = function
        self.__doc__ = function.__doc__
        self.__name__ = function.__name__

    @overload
    def __get__(self, instance: None, owner: type[Any]) -> Self: ...
    @overload
    def __get__(self, instance: Namespace[SyncRunner], owner: type[Any]) -> Callable[P, T]: ...
    @overload
    def __get__(
        self, instance: Namespace[AsyncRunner], owner: type[Any]
    ) -> Callable[P, Coroutine[Any, Any, T]]: ...
    def __get__(self, instance: Namespace[Any] | None, owner: type[Any]) -> Any:
        if instance is None:
            return self

        @functools.wraps(self.function)
        def call(*args: P.args, **kwargs: P.kwargs) -> Any:
            return instance.runner.run(self.function(instance, *args, **kwargs))

        return call
