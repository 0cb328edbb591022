"""A real HTTP proxy in front of a real S3 server, which spoils the requests it is told to."""

from __future__ import annotations

import http.client
import re
import socket
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Literal, Self
from urllib.parse import urlsplit

Kind = Literal[
    "delay",  # the answer comes late
    "drip",  # the body comes byte by byte
    "status_500",  # never reaches the server
    "status_503",
    "cut",  # half of the body that Content-Length announces
    "cut_chunked",  # half of the body in chunks, and no last chunk
    "flip",  # one bit of the answer's body
    "flip_request",  # one bit of the request's body
    "reset",  # the connection, before the request reaches the server
    "lost_answer",  # the server has done it, the connection is reset
]
_ALWAYS = 1 << 30
_HOP = frozenset({"connection", "transfer-encoding", "keep-alive", "content-length"})


@dataclass
class Fault:
    """Spoils the first ``times`` requests whose method and path match."""

    kind: Kind
    method: str
    path: str
    times: int
    seconds: float
    hits: int = 0


@dataclass
class FaultProxy:
    """Listens on a port of its own; ``url`` stands in for the server at ``upstream``."""

    upstream: str
    requests: list[tuple[str, str]] = field(default_factory=list)
    _faults: list[Fault] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __enter__(self) -> Self:
        proxy = self

        class Handler(_Handler):
            pass

        Handler.proxy = proxy
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def spoil(
        self, kind: Kind, *, method: str = "GET", path: str = "", times: int = _ALWAYS, seconds: float = 0.0
    ) -> Fault:
        """From now on; ``path`` is a regular expression that the path holds."""
        fault = Fault(kind, method, path, times, seconds)
        with self._lock:
            self._faults.append(fault)
        return fault

    def heal(self) -> None:
        with self._lock:
            self._faults.clear()

    def fault_for(self, method: str, path: str) -> Fault | None:
        with self._lock:
            self.requests.append((method, path))
            for fault in self._faults:
                if fault.hits < fault.times and fault.method == method and re.search(fault.path, path):
                    fault.hits += 1
                    return fault
        return None


class _Handler(BaseHTTPRequestHandler):
    proxy: FaultProxy
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, format: str, *args: object) -> None:
        return None

    def _handle(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        fault = self.proxy.fault_for(self.command, self.path)
        kind = fault.kind if fault else None
        if kind in ("status_500", "status_503"):
            self._answer(int(str(kind)[-3:]), {"content-type": "text/html"}, b"<h1>out of order</h1>")
            return
        if kind == "reset":
            self._reset()
            return
        status, headers, answer = self._forward(_flipped(body) if kind == "flip_request" else body)
        if kind == "lost_answer":
            self._reset()
        elif kind == "delay" and fault:
            time.sleep(fault.seconds)
            self._answer(status, headers, answer)
        elif kind == "flip":
            self._answer(status, headers, _flipped(answer))
        elif kind in ("cut", "cut_chunked", "drip") and fault:
            self._spoiled_body(fault, status, headers, answer)
        else:
            self._answer(status, headers, answer)

    do_GET = do_PUT = do_HEAD = do_DELETE = do_POST = _handle  # noqa: N815  # the base class's names

    def _forward(self, body: bytes) -> tuple[int, dict[str, str], bytes]:
        upstream = urlsplit(self.proxy.upstream)
        connection = http.client.HTTPConnection(upstream.hostname or "", upstream.port, timeout=30)
        try:
            # The Host header as it came: it is signed.
            connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                if name.lower() != "connection":
                    connection.putheader(name, value)
            connection.endheaders(body or None)
            answer = connection.getresponse()
            length = answer.headers.get("content-length")
            headers = {name: value for name, value in answer.getheaders() if name.lower() not in _HOP}
            if self.command == "HEAD" and length is not None:
                headers["content-length"] = length
            return answer.status, headers, answer.read()
        finally:
            connection.close()

    def _answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.send_response_only(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if "content-length" not in headers and status != 204:
            self.send_header("content-length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self._write(body)

    def _spoiled_body(self, fault: Fault, status: int, headers: dict[str, str], body: bytes) -> None:
        chunked = fault.kind == "cut_chunked"
        self.send_response_only(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if chunked:
            self.send_header("transfer-encoding", "chunked")
        else:
            self.send_header("content-length", str(len(body)))
        self.end_headers()
        half = body[: len(body) // 2]
        if fault.kind == "drip":
            for at in range(len(body)):
                time.sleep(fault.seconds)
                if not self._write(body[at : at + 1]):
                    break
        elif chunked:
            self._write(f"{len(half):x}\r\n".encode() + half + b"\r\n")
        else:
            self._write(half)
        self.close_connection = True

    def _write(self, data: bytes) -> bool:
        try:
            self.wfile.write(data)
            self.wfile.flush()
        except OSError:
            self.close_connection = True  # the client has had enough
            return False
        return True

    def _reset(self) -> None:
        # Linger for no time: the kernel sends RST instead of FIN.
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
        self.close_connection = True
        self.wfile = _Closed()  # type: ignore[assignment]


class _Closed:
    closed = True
    flush: Callable[[], None] = staticmethod(lambda: None)
    close: Callable[[], None] = staticmethod(lambda: None)


def _flipped(data: bytes) -> bytes:
    spoiled = bytearray(data)
    if spoiled:
        spoiled[len(spoiled) // 2] ^= 1
    return bytes(spoiled)
