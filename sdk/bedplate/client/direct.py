"""Connections of the client's own, for lookups and for whole spaces.

What httpx does for every request costs more than a lookup itself, and what it does for every 64 KiB of an
answer more than TCP. Only without a proxy between; everything else, and all of the asynchronous client, goes
through httpx, with the same answers and errors. ``python -m benchmarks sdk bulk`` prints what it costs.
"""

from __future__ import annotations

import select
import ssl
import urllib.request
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from typing import TypeAlias
from urllib.parse import urlencode, urlsplit

import httpx

from bedplate.client.bodies import HttpxBody, SocketBody
from bedplate.client.effects import Incoming, Request

_Place: TypeAlias = tuple[str, str, int | None]
"""Scheme, host and port of a server."""


class DirectConnections:
    """Keep-alive connections; may be used by several threads at once.

    Args:
        base_url: of the platform.
        headers: sent with every request of :meth:`send`.
        timeout: of connecting and of reading, in seconds.
        tls: which servers are trusted where the URL is ``https://``.

    Attributes:
        hot: whether :meth:`send` may be used: the platform is reached without a proxy.
    """

    def __init__(
        self, base_url: str, headers: Mapping[str, str], timeout: httpx.Timeout, tls: ssl.SSLContext
    ) -> None:
        address = urlsplit(base_url)
        self._base_url, self._prefix = base_url, address.path.rstrip("/")
        self._headers = dict(headers)
        self._timeout = timeout
        self._tls = tls
        self._servers: dict[_Place, _Server] = {}
        self._platform = self._server((address.scheme, address.hostname or "", address.port))
        self.hot = self.possible(base_url)

    @classmethod
    def possible(cls, url: str) -> bool:
        """Whether the server is reached without a proxy, as the environment says."""
        address = urlsplit(url)
        proxied = {address.scheme, "all"} & urllib.request.getproxies().keys()
        return not proxied or bool(urllib.request.proxy_bypass(address.hostname or ""))

    def _server(self, place: _Place) -> _Server:
        return self._servers.setdefault(place, _Server(place, self._timeout, self._tls))

    def send(self, request: Request) -> httpx.Response:
        """The whole answer to a request whose URL is a path of the platform.

        Raises:
            httpx.TransportError: nobody answers, or the connection broke.
        """
        query = f"?{urlencode(request.params)}" if request.params else ""
        url = f"{self._prefix}{request.url}{query}"
        connection = self._platform.connection()
        headers = {**self._headers, **request.headers}
        with _closed_if_broken(connection):
            connection.request(request.method, url, request.content, headers)
            answer = connection.getresponse()
            content = answer.read()
        self._platform.keep(connection, answer)
        return httpx.Response(
            answer.status,
            headers=answer.getheaders(),
            content=content,
            request=httpx.Request(request.method, f"{self._base_url}{request.url}{query}"),
        )

    def open(self, request: httpx.Request) -> Incoming:
        """The answer to a GET before its body has come; of an error, the whole answer.

        Raises:
            httpx.TransportError: nobody answers, or the connection broke.
        """
        server = self._server((request.url.scheme, request.url.host, request.url.port))
        connection = server.connection()
        # As long as every byte is read here, none is to come packed.
        headers = {**request.headers, "accept-encoding": "identity"}
        with _closed_if_broken(connection):
            connection.request(request.method, request.url.raw_path.decode("ascii"), headers=headers)
            answer = connection.getresponse()
            content = answer.read() if answer.status >= 400 else None
        response = httpx.Response(
            answer.status, headers=answer.getheaders(), content=content, request=request
        )
        if content is None:
            return Incoming(response, SocketBody(connection, answer, server.keep))
        server.keep(connection, answer)
        return Incoming(response, HttpxBody(response))

    def close(self) -> None:
        """Close the idle connections."""
        for server in self._servers.values():
            server.close()


class _Server:
    """The connections to one server that nobody uses just now."""

    def __init__(self, place: _Place, timeout: httpx.Timeout, tls: ssl.SSLContext) -> None:
        self._place, self._timeout, self._tls = place, timeout, tls
        self._idle: deque[HTTPConnection] = deque()

    def connection(self) -> HTTPConnection:
        """One that is idle, or a new one. Raises httpx.ConnectTimeout, httpx.ConnectError."""
        return self._taken() or self._connected()

    def keep(self, connection: HTTPConnection, answer: HTTPResponse) -> None:
        """For the next request, unless the answer says that it ends; the answer has been read."""
        if answer.will_close:
            connection.close()
        else:
            self._idle.append(connection)

    def close(self) -> None:
        """Close the idle connections."""
        while self._idle:
            self._idle.pop().close()

    def _taken(self) -> HTTPConnection | None:
        """An idle connection that the server has not closed meanwhile, the one used last first."""
        while True:
            try:
                connection = self._idle.pop()
            except IndexError:
                return None
            if connection.sock is not None and not _readable(connection.sock.fileno()):
                return connection
            connection.close()

    def _connected(self) -> HTTPConnection:
        scheme, host, port = self._place
        seconds = self._timeout.connect
        connection = HTTPConnection(host, port, timeout=seconds)
        if scheme == "https":
            connection = HTTPSConnection(host, port, timeout=seconds, context=self._tls)
        try:
            connection.connect()
        except TimeoutError as error:
            raise httpx.ConnectTimeout(str(error)) from error
        except OSError as error:
            raise httpx.ConnectError(str(error)) from error
        connection.sock.settimeout(self._timeout.read)
        return connection


@contextmanager
def _closed_if_broken(connection: HTTPConnection) -> Iterator[None]:
    """Turn what the connection raises into httpx.ReadTimeout and httpx.ReadError."""
    try:
        yield
    except TimeoutError as error:
        connection.close()
        raise httpx.ReadTimeout(str(error)) from error
    except (OSError, HTTPException) as error:
        connection.close()
        raise httpx.ReadError(str(error)) from error


def _readable(descriptor: int) -> bool:
    """Between answers there is nothing to read but the end of the connection."""
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(0))
