"""uvicorn's HTTP protocol with a fast lane in front.

What the lane needs of uvicorn, and tests/integration/services/test_lane.py holds: ``data_received`` may be
called with any bytes in any pieces; ``cycle.response_complete``, ``pipeline``, ``flow`` and the message
callbacks tell whether a connection is idle; ``default_headers`` of the server state; the keep-alive timer.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from bedplate.errors import BedplateError

STATE = "bedplate_lane"
"""Where an application leaves its lane in the lifespan's state, for the server's protocol to find."""
_END_OF_HEAD = b"\r\n\r\n"
Buffers = Sequence[bytes | memoryview]
ServerHeaders = Sequence[tuple[bytes, bytes]]
Done = Callable[[Any], None]


class Asks(Protocol):
    """What a request head asks; ``body_bytes`` is at least 1."""

    @property
    def body_bytes(self) -> int: ...


class RequestLane(Protocol):
    """What answers beside the application. What it asks, finds and gets it alone understands."""

    def ask(self, head: bytes) -> Asks | None:
        """What a request head asks, if the lane may answer it."""

    def locate(self, ask: Any) -> Any | None:
        """Who answers, if that can be told without waiting for anything."""

    def read(self, ask: Any, body: bytes, located: Any) -> Any:
        """What a body asks for; None: too much for the lane. Raises what the ordinary path would raise."""

    def begin(self, ask: Any, asked: Any, located: Any, done: Done) -> None:
        """Answer it; ``done`` is called with the outcome or an exception, perhaps before this returns."""

    def answer(self, ask: Any, located: Any, outcome: Any, server_headers: ServerHeaders) -> Buffers | None:
        """The whole answer; None: the ordinary path is to give it. Raises what that would raise."""

    def count(self, ask: Any, outcome: Any, seconds: float) -> None:
        """Tell the metrics of an answer."""


@dataclass(slots=True)
class _Coming:
    """A request of which ``missing`` bytes of body have not come yet."""

    ask: Asks
    chunks: list[bytes]
    missing: int
    body_at: int
    began: float


class _UnderWay(NamedTuple):
    """A request that is being answered, as it came."""

    ask: Asks
    located: Any
    request: bytes
    began: float


class LaneProtocol(HttpToolsProtocol):
    """Meets every request first. What the lane cannot answer goes on to uvicorn as it came.

    One request at a time: while a body is still coming or an answer is under way, nothing else of this
    connection is read.
    """

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._lane: RequestLane | None = self.app_state.get(STATE)
        self._in_message = False  # uvicorn's parser is in the middle of a request
        self._coming: _Coming | None = None
        self._under_way: _UnderWay | None = None
        self._early: list[bytes] = []
        self._stopping = False
        self._answered_at = 0.0

    # What comes in

    def data_received(self, data: bytes) -> None:
        if self._under_way is not None:
            self._early.append(data)
            self.flow.pause_reading()
        elif self._coming is not None:
            self._body_received(self._coming, data)
        elif self._lane is None or not self._idle() or not self._head_received(self._lane, data):
            super().data_received(data)

    def _idle(self) -> bool:
        return (
            not self._in_message
            and (self.cycle is None or self.cycle.response_complete)
            and not self.pipeline
            and not self.flow.write_paused
            and not self.transport.is_closing()
        )

    def _head_received(self, lane: RequestLane, data: bytes) -> bool:
        """Whether the lane takes the request."""
        began = time.perf_counter()
        body_at = data.find(_END_OF_HEAD) + len(_END_OF_HEAD)
        ask = lane.ask(data[:body_at]) if body_at >= len(_END_OF_HEAD) else None
        if ask is None:
            return False
        missing = ask.body_bytes - (len(data) - body_at)
        if missing == 0:
            return self._take(ask, data, body_at, began)
        if missing < 0 or lane.locate(ask) is None:
            return False  # more than one request; or one that may be refused before its body is here
        self._coming = _Coming(ask, [data], missing, body_at, began)
        return True

    def _body_received(self, coming: _Coming, data: bytes) -> None:
        coming.chunks.append(data)
        coming.missing -= len(data)
        if coming.missing > 0:
            return
        self._coming = None
        request = b"".join(coming.chunks)
        if coming.missing < 0 or not self._take(coming.ask, request, coming.body_at, coming.began):
            super().data_received(request)

    # What goes out

    def _take(self, ask: Asks, request: bytes, body_at: int, began: float) -> bool:
        """Begin to answer a whole request; False: the lane cannot."""
        assert self._lane is not None
        located = self._lane.locate(ask)
        if located is None:
            return False
        try:
            asked = self._lane.read(ask, request[body_at:], located)
        except Exception:  # noqa: BLE001  # whatever it is, the ordinary path meets it again and tells the client
            return False
        if asked is None:
            return False
        self._under_way = _UnderWay(ask, located, request, began)
        self._lane.begin(ask, asked, located, self._done)
        return True

    def _done(self, outcome: Any) -> None:
        asked = self._under_way
        assert asked is not None
        self._under_way = None
        if self.transport.is_closing():
            return  # nobody waits for the answer
        if not self._send(asked, outcome):
            super().data_received(asked.request)
        if self._early:
            self.flow.resume_reading()
            early, self._early = b"".join(self._early), []
            if not self._stopping:
                self.data_received(early)
        if self._stopping:
            super().shutdown()

    def _send(self, asked: _UnderWay, outcome: Any) -> bool:
        """Whether the answer went out; False: the ordinary path is to say why not."""
        assert self._lane is not None
        try:
            answer = self._lane.answer(asked.ask, asked.located, outcome, self.server_state.default_headers)
        except BedplateError:
            return False
        if answer is None:
            return False
        self.transport.writelines(answer)
        self.server_state.total_requests += 1
        self._answered_at = self.loop.time()
        if self.timeout_keep_alive_task is None:
            self._watch_keep_alive(self.timeout_keep_alive)
        self._lane.count(asked.ask, outcome, time.perf_counter() - asked.began)
        return True

    # When the connection ends

    def _watch_keep_alive(self, seconds: float) -> None:
        self.timeout_keep_alive_task = self.loop.call_later(seconds, self.timeout_keep_alive_handler)

    def timeout_keep_alive_handler(self) -> None:
        """Ends a connection that was idle long enough; the lane does not set the timer for each request."""
        self.timeout_keep_alive_task = None
        left = self._answered_at + self.timeout_keep_alive - self.loop.time()
        if self._coming is not None or self._under_way is not None:
            self._watch_keep_alive(self.timeout_keep_alive)
        elif left > 0:
            self._watch_keep_alive(left)
        else:
            super().timeout_keep_alive_handler()

    def connection_lost(self, exc: Exception | None) -> None:
        self._coming = None
        self._early = []
        super().connection_lost(exc)
        self._unset_keepalive_if_required()

    def shutdown(self) -> None:
        """What has begun is answered, then the connection closes."""
        self._stopping = True
        if self._under_way is not None:
            return
        if self._coming is not None:
            request, self._coming = b"".join(self._coming.chunks), None
            super().data_received(request)
        super().shutdown()

    # Where uvicorn's parser is

    def on_message_begin(self) -> None:
        self._in_message = True
        super().on_message_begin()

    def on_message_complete(self) -> None:
        self._in_message = False
        super().on_message_complete()
