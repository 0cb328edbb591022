"""Connections for small, frequent reads: what httpx does for every request costs more than a lookup itself.

Only plain HTTP to the platform, without a proxy between; everything else, and all of the asynchronous client,
goes through httpx, with the same answers and errors. ``python -m benchmarks sdk`` prints what both cost.
"""

from __future__ import annotations

import select
import urllib.request
from collections import deque
from collections.abc import Mapping
from http.client import HTTPConnection, HTTPException
from urllib.parse import urlencode, urlsplit

import httpx

from bedplate.client.effects import Request


class DirectConnections:
    """Keep-alive connections to one platform; may be used by several threads at once.

    Args:
        base_url: of the platform, ``http://``.
        headers: sent with every request.
        timeout: of connecting and of reading, in seconds.
    """

    def __init__(self, base_url: str, headers: Mapping[str, str], timeout: httpx.Timeout) -> None:
        address = urlsplit(base_url)
        self._base_url = base_url
        self._host, self._port, self._prefix = address.hostname or "", address.port, address.path.rstrip("/")
        self._headers = dict(headers)
        self._timeout = timeout
        self._idle: deque[HTTPConnection] = deque()

    @classmethod
    def possible(cls, base_url: str) -> bool:
        """Whether the platform is reached by plain HTTP and without a proxy, as the environment says."""
        address = urlsplit(base_url)
        host = address.hostname or ""
        proxied = {"http", "all"} & urllib.request.getproxies().keys() and not urllib.request.proxy_bypass(
            host
        )
        return address.scheme == "http" and not proxied

    def send(self, request: Request) -> httpx.Response:
        """The whole answer to a request whose URL is a path of the platform.

        Raises:
            httpx.TransportError: nobody answers, or the connection broke.
        """
        query = f"?{urlencode(request.params)}" if request.params else ""
        url = f"{self._prefix}{request.url}{query}"
        connection = self._taken() or self._connected()
        try:
            connection.request(request.method, url, request.content, {**self._headers, **request.headers})
            answer = connection.getresponse()
            content = answer.read()
        except TimeoutError as error:
            connection.close()
            raise httpx.ReadTimeout(str(error)) from error
        except (OSError, HTTPException) as error:
            connection.close()
            raise httpx.ReadError(str(error)) from error
        if answer.will_close:
            connection.close()
        else:
            self._idle.append(connection)
        return httpx.Response(
            answer.status,
            headers=answer.getheaders(),
            content=content,
            request=httpx.Request(request.method, f"{self._base_url}{request.url}{query}"),
        )

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
        connection = HTTPConnection(self._host, self._port, timeout=self._timeout.connect)
        try:
            connection.connect()
        except TimeoutError as error:
            raise httpx.ConnectTimeout(str(error)) from error
        except OSError as error:
            raise httpx.ConnectError(str(error)) from error
        connection.sock.settimeout(self._timeout.read)
        return connection


def _readable(descriptor: int) -> bool:
    """Between answers there is nothing to read but the end of the connection."""
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(0))
