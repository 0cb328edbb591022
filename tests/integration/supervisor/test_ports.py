from __future__ import annotations

import socket

import pytest

from bedplate_services.supervisor.ports import PortInUse, choose_ports


def test_zero_means_distinct_free_ports() -> None:
    first, second = choose_ports("127.0.0.1", [(0, "--port"), (0, "--inference-port")])
    assert first != second
    assert min(first, second) > 0


def test_a_taken_port_is_an_error_that_names_the_option() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(PortInUse, match=rf"127\.0\.0\.1:{port}.*--inference-port 0"):
            choose_ports("127.0.0.1", [(0, "--port"), (port, "--inference-port")], patience_seconds=0.0)
