"""The client's own connections over TLS, against a real server on this machine."""

from __future__ import annotations

import hashlib
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from tests.engines.engine import Absent
from tests.engines.tools import Tool

from bedplate import Client
from bedplate.client.downloads import Wanted, fetch
from bedplate.client.effects import Request
from bedplate.errors import Unavailable

from . import test_direct
from .test_large_answers import BODY, ROWS, cut, keys, scanned, server, whole

__all__ = ["server"]


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate of 127.0.0.1, signed by itself, in one file with its key."""
    try:
        openssl = Tool("openssl", "apt-get install openssl").find()
    except Absent as absent:
        pytest.skip(str(absent))
    file = tmp_path_factory.mktemp("tls") / "certificate.pem"
    names = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    command = [openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", *names]
    subprocess.run(
        [*command, "-keyout", file, "-out", file.with_suffix(".crt")], check=True, capture_output=True
    )
    file.write_bytes(file.read_bytes() + file.with_suffix(".crt").read_bytes())
    return file


@pytest.fixture
def secure(server: Any, certificate: Path) -> Any:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    server.url = server.url.replace("http://", "https://")
    return server


@pytest.fixture
def client(secure: Any, certificate: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Client]:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    with Client(secure.url, "secret", sleep=lambda _: None, environment={}) as client:
        yield client


def test_lookups(secure: Any, client: Client) -> None:
    secure.RequestHandlerClass = test_direct.Handler
    secure.answer = (200, test_direct.ROWS, np.array([1, 2], "<f4").tobytes() + b"\x01", False)
    assert [test_direct.look(client) for _ in range(3)] == [[[1.0, 2.0]]] * 3
    assert len({id(connection) for connection, _, _ in secure.seen}) == 1
    assert "connection" not in secure.seen[0][2], "not httpx"


def test_a_scan_that_breaks_off(secure: Any, client: Client) -> None:
    def rest(handler: Any) -> None:
        whole(scanned(int(httpx.URL(handler.path).params["start_row"])))(handler)

    secure.answers = [cut(scanned(0), len(scanned(100))), rest]
    assert keys(client) == list(range(ROWS))
    assert len(secure.seen) == 2


def test_a_file(secure: Any, client: Client, tmp_path: Path) -> None:
    secure.answers = [cut(BODY, 1_500_000), cut(BODY, len(BODY))]
    request = Request("GET", f"{secure.url}/signed", idempotent=True, authenticated=False)
    file = Wanted(request, tmp_path / "vectors", len(BODY), hashlib.sha256(BODY).hexdigest())
    client.runner.run(fetch([file]))
    assert file.target.read_bytes() == BODY
    assert [headers.get("range") for _, _, headers in secure.seen] == [None, "bytes=1500000-"]
    assert all(headers["accept-encoding"] == "identity" for _, _, headers in secure.seen), "not httpx"


def test_connections_are_used_again(secure: Any, client: Client) -> None:
    secure.answers = [whole(scanned(0))]
    for _ in range(3):
        assert keys(client) == list(range(ROWS))
    assert len({id(connection) for connection, _, _ in secure.seen}) == 1


def test_a_server_that_nobody_vouches_for(secure: Any) -> None:
    secure.answers = [whole(scanned(0))]
    with (
        Client(secure.url, "secret", sleep=lambda _: None, environment={}) as client,
        pytest.raises(Unavailable, match="certificate"),
    ):
        keys(client)
    assert secure.seen == []
