"""How an operation is written once and run by both clients.

An operation is a generator that yields the effects it needs (send a request, save an answer to a file, pause,
do blocking work) and returns its result. ``SyncRunner`` performs them with httpx.Client, ``AsyncRunner`` with
httpx.AsyncClient; nothing else differs between ``Client`` and ``AsyncClient``. One whose results come bit by
bit also yields ``Give``: ``client/streams.py``.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Concatenate, Generic, ParamSpec, Protocol, Self, TypeVar, overload

import httpx

from bedplate.client.answers import error_of
from bedplate.client.bodies import AsyncHttpxBody, HttpxBody
from bedplate.client.effects import (
    Blocking,
    Effect,
    Give,
    Incoming,
    Open,
    Pause,
    Read,
    Request,
    Send,
    Sink,
    Steps,
    Together,
)
from bedplate.client.sending import prepared, reported, unreachable
from bedplate.errors import Unavailable

T = TypeVar("T")
P = ParamSpec("P")

RETRY_DELAYS_SECONDS = (0.1, 0.4, 1.6)
MAXIMUM_RETRY_AFTER_SECONDS = 10.0
RETRIED_STATUS = 503
PARALLEL = 4


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


class Direct(Protocol):
    """Sends hot requests and opens large answers; ``bedplate.client.direct`` has the one clients use."""

    @property
    def hot(self) -> bool:
        """Whether it may send."""

    def send(self, request: Request) -> httpx.Response:
        """Raises httpx.TransportError."""
        ...

    def possible(self, url: str) -> bool:
        """Whether it may open this URL."""
        ...

    def open(self, request: httpx.Request) -> Incoming:
        """Raises httpx.TransportError."""
        ...


class SyncRunner:
    """Performs effects with httpx.Client, hot requests and large answers with ``direct`` where it can."""

    def __init__(
        self, http: httpx.Client, sleep: Callable[[float], None], direct: Direct | None = None
    ) -> None:
        self.http = http
        self._sleep = sleep
        self._stopped = False
        self._direct = direct
        self.cache: dict[str, Any] = {}
        self.verified: dict[Path, tuple[str, tuple[int, ...]]] = {}

    def run(self, steps: Steps[T]) -> T:
        try:
            effect = next(steps)
            while True:
                try:
                    result = self.perform(effect)
                except Exception as error:  # noqa: BLE001  # handed to the operation, which handles or raises it
                    effect = steps.throw(error)
                else:
                    effect = steps.send(result)
        except StopIteration as stop:
            value: T = stop.value
            return value

    def perform(self, effect: Effect) -> Any:
        """Do it; raises what it raises."""
        if isinstance(effect, Pause):
            return self._sleep(effect.seconds)
        if isinstance(effect, Blocking):
            return effect.function()
        if isinstance(effect, Together):
            return self._together(effect.steps)
        if isinstance(effect, Read):
            with reported(effect.incoming.response.request):
                return effect.incoming.body.readinto(effect.room)
        if isinstance(effect, Give):
            raise TypeError("an operation that gives values is made with streams.streamed")
        if isinstance(effect, Send):
            return self._sent(effect.request)
        request = prepared(self.http, effect.request)
        with reported(request):
            incoming = self._opened(request)
            return incoming if isinstance(effect, Open) else self._saved(incoming, effect.sink)

    def _sent(self, request: Request) -> httpx.Response:
        if self._direct is not None and request.hot and self._direct.hot:
            try:
                return self._direct.send(request)
            except httpx.TransportError as error:
                raise unreachable(prepared(self.http, request), error) from error
        built = prepared(self.http, request)
        with reported(built):
            return self.http.send(built)

    def _opened(self, request: httpx.Request) -> Incoming:
        if self._direct is not None and self._direct.possible(str(request.url)):
            return self._direct.open(request)
        response = self.http.send(request, stream=True)
        if response.status_code >= 400:
            try:
                response.read()
            finally:
                response.close()
        return Incoming(response, HttpxBody(response))

    def _saved(self, incoming: Incoming, sink: Sink) -> httpx.Response:
        try:
            if incoming.response.status_code < 400:
                sink.begin(incoming.response)
                while count := incoming.body.readinto(sink.room()):
                    if self._stopped:
                        raise Unavailable("Given up, because something that ran beside it failed.")
                    sink.filled(count)
            return incoming.response
        finally:
            incoming.body.close()

    def _together(self, steps: Sequence[Steps[Any]]) -> list[Any]:
        part = SyncRunner(self.http, self._sleep, self._direct)
        with ThreadPoolExecutor(PARALLEL, "bedplate") as pool:
            running = [pool.submit(part.run, each) for each in steps]
            try:
                return [each.result() for each in running]
            except BaseException:
                # Also after Ctrl-C: what runs beside must not keep the caller waiting.
                part._stopped = True
                for each in running:
                    each.cancel()
                raise

    def given(self, steps: Steps[None]) -> Iterator[Any]:
        """The values that ``steps`` gives; what it has open is closed when the caller has enough."""
        incoming: Incoming | None = None
        try:
            effect = next(steps)
            while True:
                if isinstance(effect, Give):
                    yield effect.value
                    effect = steps.send(None)
                    continue
                try:
                    result = self.perform(effect)
                    incoming = result if isinstance(effect, Open) else incoming
                except Exception as error:  # noqa: BLE001  # handed to the operation, which handles or raises it
                    effect = steps.throw(error)
                else:
                    effect = steps.send(result)
        except StopIteration:
            return
        finally:
            steps.close()
            if incoming is not None:
                incoming.body.close()


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
        self.verified: dict[Path, tuple[str, tuple[int, ...]]] = {}

    async def run(self, steps: Steps[T]) -> T:
        try:
            effect = next(steps)
            while True:
                try:
                    result = await self.perform(effect)
                except Exception as error:  # noqa: BLE001  # handed to the operation, which handles or raises it
                    effect = steps.throw(error)
                else:
                    effect = steps.send(result)
        except StopIteration as stop:
            value: T = stop.value
            return value

    async def perform(self, effect: Effect) -> Any:
        """Do it; raises what it raises."""
        if isinstance(effect, Pause):
            return await self._sleep(effect.seconds)
        if isinstance(effect, Blocking):
            return await self._in_thread(effect.function)
        if isinstance(effect, Together):
            return await self._together(effect.steps)
        if isinstance(effect, Read):
            with reported(effect.incoming.response.request):
                return await effect.incoming.body.readinto(effect.room)
        if isinstance(effect, Give):
            raise TypeError("an operation that gives values is made with streams.streamed")
        request = prepared(self.http, effect.request)
        with reported(request):
            if isinstance(effect, Send):
                return await self.http.send(request)
            incoming = await self._opened(request)
            return incoming if isinstance(effect, Open) else await self._saved(incoming, effect.sink)

    async def _opened(self, request: httpx.Request) -> Incoming:
        response = await self.http.send(request, stream=True)
        if response.status_code >= 400:
            try:
                await response.aread()
            finally:
                await response.aclose()
        return Incoming(response, AsyncHttpxBody(response))

    async def _saved(self, incoming: Incoming, sink: Sink) -> httpx.Response:
        try:
            if incoming.response.status_code < 400:
                sink.begin(incoming.response)
                while count := await incoming.body.readinto(sink.room()):
                    sink.filled(count)  # a block at the most into the page cache
            return incoming.response
        finally:
            await incoming.body.aclose()

    async def _together(self, steps: Sequence[Steps[Any]]) -> list[Any]:
        slots = asyncio.Semaphore(PARALLEL)

        async def one(each: Steps[Any]) -> Any:
            async with slots:
                return await self.run(each)

        return await asyncio.gather(*map(one, steps))

    async def given(self, steps: Steps[None]) -> AsyncIterator[Any]:
        """The values that ``steps`` gives; what it has open is closed when the caller has enough."""
        incoming: Incoming | None = None
        try:
            effect = next(steps)
            while True:
                if isinstance(effect, Give):
                    yield effect.value
                    effect = steps.send(None)
                    continue
                try:
                    result = await self.perform(effect)
                    incoming = result if isinstance(effect, Open) else incoming
                except Exception as error:  # noqa: BLE001  # handed to the operation, which handles or raises it
                    effect = steps.throw(error)
                else:
                    effect = steps.send(result)
        except StopIteration:
            return
        finally:
            steps.close()
            if incoming is not None:
                await incoming.body.aclose()


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
