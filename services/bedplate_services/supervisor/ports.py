"""TCP ports for the children: taken as asked for, or any free one."""

from __future__ import annotations

import socket
import time
from collections.abc import Sequence
from contextlib import ExitStack

from bedplate.errors import Conflict

_RETRY_SECONDS = 0.1


class PortInUse(Conflict):
    code = "port_in_use"
    title = "The port is taken by another process"


def choose_ports(host: str, wanted: Sequence[tuple[int, str]], patience_seconds: float = 3.0) -> list[int]:
    """Distinct ports that can be bound on ``host``: each of the wanted ones, or a free one where it is 0.

    A port that the children of a supervisor killed a moment ago still hold comes free within
    ``patience_seconds``.

    Args:
        wanted: pairs of (port, the command line option that sets it).

    Raises:
        PortInUse: another process listens there; the detail names the option as the mend.
    """
    deadline = time.monotonic() + patience_seconds
    with ExitStack() as held:
        return [_hold(held, host, port, option, deadline) for port, option in wanted]


def _hold(held: ExitStack, host: str, port: int, option: str, deadline: float) -> int:
    while True:
        probe = held.enter_context(socket.socket(_family(host), socket.SOCK_STREAM))
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            if time.monotonic() >= deadline:
                raise PortInUse(
                    f"Cannot listen on {host}:{port} ({error.strerror}). "
                    f"Choose another port with {option} N, or {option} 0 for any free one."
                ) from error
            time.sleep(_RETRY_SECONDS)
            continue
        number: int = probe.getsockname()[1]
        return number


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET
