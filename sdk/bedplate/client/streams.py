"""Operations whose results come bit by bit, written once for both clients like all others (see ``steps``)."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, Concatenate, Generic, ParamSpec, Self, TypeVar, overload

from bedplate.client.answers import error_of
from bedplate.client.effects import Incoming, Open, Pause, Request, Steps
from bedplate.client.steps import RETRY_DELAYS_SECONDS, AsyncRunner, Namespace, SyncRunner
from bedplate.errors import Unavailable

T = TypeVar("T")
P = ParamSpec("P")
_DELAYS_SECONDS = (*RETRY_DELAYS_SECONDS, 5.0, 10.0)


def opened(request: Request) -> Steps[Incoming]:
    """Send ``request`` and return its answer before its body has come. Raises what the answer says."""
    incoming: Incoming = yield Open(request)
    if incoming.response.status_code >= 400:
        raise error_of(incoming.response)
    return incoming


class Patience:
    """How often something that breaks off is begun again: until a killed service runs again; anew after
    progress.
    """

    def __init__(self) -> None:
        self._failures = 0

    def progress(self) -> None:
        """It went on; earlier failures are forgiven."""
        self._failures = 0

    def wait(self, error: Unavailable) -> Steps[None]:
        """Wait before the next try. Raises ``error`` when there were enough."""
        if self._failures == len(_DELAYS_SECONDS):
            raise error
        yield Pause(_DELAYS_SECONDS[self._failures])
        self._failures += 1


class streamed(Generic[P, T]):  # noqa: N801  # used as a decorator, like property
    """Makes a generator method that yields ``Give`` callable, to an iterator or an asynchronous one."""

    def __init__(self, function: Callable[Concatenate[Any, P], Steps[None]], kind: type[T]) -> None:
        self.function = function
        self.__doc__ = function.__doc__
        self.__name__ = function.__name__

    @classmethod
    def of(cls, kind: type[T]) -> Callable[[Callable[Concatenate[Any, P], Steps[None]]], streamed[P, T]]:
        """Of values of ``kind``."""
        return lambda function: streamed(function, kind)

    @overload
    def __get__(self, instance: None, owner: type[Any]) -> Self: ...
    @overload
    def __get__(self, instance: Namespace[SyncRunner], owner: type[Any]) -> Callable[P, Iterator[T]]: ...
    @overload
    def __get__(
        self, instance: Namespace[AsyncRunner], owner: type[Any]
    ) -> Callable[P, AsyncIterator[T]]: ...
    def __get__(self, instance: Namespace[Any] | None, owner: type[Any]) -> Any:
        if instance is None:
            return self

        @functools.wraps(self.function)
        def call(*args: P.args, **kwargs: P.kwargs) -> Any:
            return instance.runner.given(self.function(instance, *args, **kwargs))

        return call
