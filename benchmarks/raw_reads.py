"""Reading files, and what servers send, as fast as this machine can: the limits of every bulk read."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from bedplate.errors import InternalError

_PIECE_BYTES = 1 << 20
_HEAD_BYTES = 4096


def scan(path: Path, also: Callable[[Any], None] | None = None) -> None:
    """Read a file in pieces through one buffer and touch every byte; ``also`` is given each piece."""
    buffer = np.empty(_PIECE_BYTES, np.uint8)
    with open(path, "rb", buffering=0) as file:
        while count := file.readinto(buffer.data):
            touch(buffer[: count - count % 8])
            if also is not None:
                also(buffer[:count])


def receive(connection: socket.socket, also: Callable[[Any], None] | None = None) -> int:
    """The same with what comes over a connection, until its end; gives the count of bytes."""
    buffer = np.empty(_PIECE_BYTES, np.uint8)
    total = 0
    while count := connection.recv_into(buffer.data):
        touch(buffer[: count - count % 8])
        if also is not None:
            also(buffer[:count])
        total += count
    return total


def get(url: str, also: Callable[[Any], None] | None = None) -> None:
    """The same with the body of a plain GET of a ``http://`` URL."""
    address = urlsplit(url)
    with socket.create_connection((address.hostname, address.port)) as connection:
        request = f"GET {address.path}?{address.query} HTTP/1.1\r\nHost: {address.netloc}\r\n"
        connection.sendall(f"{request}Connection: close\r\n\r\n".encode())
        answer = b""
        while b"\r\n\r\n" not in answer:
            answer += connection.recv(_HEAD_BYTES)
        head, _, begun = answer.partition(b"\r\n\r\n")
        if also is not None:
            also(begun)
        total = len(begun) + receive(connection, also)
    if b" 200 " not in head or f"content-length: {total}" not in head.decode().lower():
        raise InternalError(f"{address.path} was answered by {total} bytes and the head {head!r}")


def touch(values: Any) -> None:
    """Look at every byte, at the speed of memory."""
    values.reshape(-1).view(np.uint64).sum()
