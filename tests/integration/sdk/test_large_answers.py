"""Large answers over the client's own connections, against a real server on this machine."""

from __future__ import annotations

import hashlib
import socket
import struct
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pyarrow as pa
import pytest

from bedplate import Client
from bedplate.client.direct import DirectConnections
from bedplate.client.downloads import Wanted, fetch
from bedplate.client.effects import Request
from bedplate.codecs import ScanInfo, encode_scan, scan_schema
from bedplate.errors import DigestMismatch, NotFound, SpaceNotReady, Unavailable

from .local_server import serving

BODY = np.random.default_rng(0).bytes(5_000_000)
PROBLEM = b'{"code": "space_not_ready", "title": "Not ready", "status": 409, "detail": "embed it first"}'
Answer = Callable[["Handler"], None]


class Handler(BaseHTTPRequestHandler):
    """Answers as the server's list says, one answer a request; the last one again and again."""

    protocol_version = "HTTP/1.1"
    server: Any

    def do_GET(self) -> None:
        self.server.seen.append((self.connection, self.path, dict(self.headers)))
        answers: list[Answer] = self.server.answers
        (answers[0] if len(answers) == 1 else answers.pop(0))(self)

    def begin(self, status: int, **headers: Any) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()

    def log_message(self, *_: object) -> None:
        return None


def whole(body: bytes, status: int = 200, **headers: Any) -> Answer:
    def answer(handler: Handler) -> None:
        handler.begin(status, content_length=len(body), **headers)
        handler.wfile.write(body)

    return answer


def cut(body: bytes, sent: int, *, reset: bool = False) -> Answer:
    """So many bytes of ``body``, from where the request's Range begins, then the connection ends."""

    def answer(handler: Handler) -> None:
        wanted = handler.headers.get("range", "bytes=0-")
        start = int(wanted[len("bytes=") :].partition("-")[0])
        headers = {"content_range": f"bytes {start}-{len(body) - 1}/{len(body)}"} if start else {}
        handler.begin(206 if start else 200, content_length=len(body) - start, **headers)
        handler.wfile.write(body[start : start + sent])
        if reset:
            linger = struct.pack("ii", 1, 0)
            handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        handler.close_connection = True

    return answer


def in_chunks(body: bytes, *, ended: bool = True) -> Answer:
    """With HTTP's chunked coding, as proxies use it."""

    def answer(handler: Handler) -> None:
        handler.begin(200, transfer_encoding="chunked")
        for start in range(0, len(body), 70_000):
            piece = body[start : start + 70_000]
            handler.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece))
        handler.wfile.write(b"0\r\n\r\n" if ended else b"")
        handler.close_connection = not ended

    return answer


def until_closed(body: bytes) -> Answer:
    def answer(handler: Handler) -> None:
        handler.begin(200, connection="close")
        handler.wfile.write(body)
        handler.close_connection = True

    return answer


def silent(handler: Handler) -> None:
    """A head and a beginning, then nothing, until the client has had enough."""
    handler.begin(200, content_length=len(BODY))
    handler.wfile.write(BODY[:1000])
    handler.rfile.read(1)


@pytest.fixture
def server() -> Iterator[Any]:
    with serving(Handler) as server:
        yield server


@pytest.fixture
def direct(server: Any) -> Iterator[DirectConnections]:
    direct = DirectConnections("http://platform.test", {}, httpx.Timeout(5), httpx.create_ssl_context())
    yield direct
    direct.close()


@pytest.fixture
def client(server: Any) -> Iterator[Client]:
    with Client(server.url, "secret", sleep=lambda _: None, environment={}) as client:
        yield client


def read(direct: DirectConnections, url: str, piece: int = 100_000) -> bytes:
    incoming = direct.open(httpx.Request("GET", url))
    room, found = memoryview(bytearray(piece)), bytearray()
    while count := incoming.body.readinto(room):
        found += room[:count]
    return bytes(found)


@pytest.mark.parametrize(
    ("answer", "body"),
    [(whole(BODY), BODY), (in_chunks(BODY), BODY), (until_closed(BODY), BODY), (whole(b""), b"")],
    ids=["length", "chunks", "until closed", "empty"],
)
@pytest.mark.parametrize("piece", [7_777, 1 << 20])
def test_every_way_to_end_a_body(
    server: Any, direct: DirectConnections, answer: Answer, body: bytes, piece: int
) -> None:
    server.answers = [answer]
    assert read(direct, server.url, piece) == body


@pytest.mark.parametrize(
    "answer",
    [cut(BODY, 1_000_000), cut(BODY, 0), cut(BODY, 1_000_000, reset=True), in_chunks(BODY, ended=False)],
    ids=["cut", "nothing", "reset", "last chunk missing"],
)
def test_a_body_cut_short_is_noticed(server: Any, direct: DirectConnections, answer: Answer) -> None:
    server.answers = [answer]
    with pytest.raises(httpx.TransportError):
        read(direct, server.url)


def test_a_server_that_falls_silent(server: Any) -> None:
    server.answers = [silent]
    direct = DirectConnections(server.url, {}, httpx.Timeout(0.2), httpx.create_ssl_context())
    with pytest.raises(httpx.ReadTimeout):
        read(direct, server.url)
    direct.close()


def test_a_connection_serves_again_only_after_a_whole_body(server: Any, direct: DirectConnections) -> None:
    server.answers = [whole(BODY)]
    assert read(direct, server.url) == read(direct, server.url)
    incoming = direct.open(httpx.Request("GET", server.url))
    incoming.body.readinto(memoryview(bytearray(10)))
    incoming.body.close()
    assert incoming.body.readinto(memoryview(bytearray(10))) == 0
    assert read(direct, server.url) == BODY
    first, second, left, fresh = [connection for connection, _, _ in server.seen]
    assert first is second is left is not fresh


def test_an_error_comes_whole_and_its_connection_is_kept(server: Any, direct: DirectConnections) -> None:
    server.answers = [whole(PROBLEM, 409, content_type="application/problem+json"), whole(BODY)]
    incoming = direct.open(httpx.Request("GET", server.url))
    assert incoming.response.json()["code"] == "space_not_ready"
    incoming.body.close()
    assert read(direct, server.url) == BODY
    assert server.seen[0][0] is server.seen[1][0]


def test_what_httpx_would_send_is_sent(server: Any, direct: DirectConnections) -> None:
    server.answers = [whole(b"x")]
    headers = {"user-agent": "bedplate/1", "x-request-id": "r1", "accept-encoding": "gzip"}
    with httpx.Client(headers=headers) as http:
        direct.open(http.build_request("GET", f"{server.url}/a b/%2F?q=%26+&r=\u00fc"))
    _, path, sent = server.seen[0]
    assert path == "/a%20b/%2F?q=%26+&r=%C3%BC"
    assert sent == {**sent, "user-agent": "bedplate/1", "x-request-id": "r1", "accept-encoding": "identity"}
    assert sent["host"] == server.url.removeprefix("http://")


ROWS, DIM = 300, 64


def scanned(first_row: int) -> bytes:
    """The rows of a space from ``first_row`` on, vectors of their own number, 50 a batch."""
    info = ScanInfo("core@7/item", 2, 14, first_row, ROWS - first_row)
    schema = scan_schema(info, "int64", DIM, "float32", ("key", "vector"))
    batches = []
    for start in range(first_row, ROWS, 50):
        numbers = np.arange(start, min(start + 50, ROWS))
        flat = pa.array(np.repeat(numbers, DIM).astype(np.float32))
        columns = [pa.array(numbers), pa.FixedSizeListArray.from_arrays(flat, DIM)]
        batches.append(pa.RecordBatch.from_arrays(columns, schema=schema))
    return b"".join(bytes(part) for parts in encode_scan(schema, batches) for part in parts)


def keys(client: Client) -> list[int]:
    found: list[int] = []
    for batch in client.spaces.scan("core@production/item"):
        assert batch.keys is not None
        assert batch.vectors is not None
        assert np.array_equal(batch.vectors, np.repeat(batch.keys, DIM).reshape(-1, DIM))
        found += list(batch.keys)
    return found


def test_a_scan(server: Any, client: Client) -> None:
    server.answers = [whole(scanned(0))]
    assert keys(client) == keys(client) == list(range(ROWS))
    assert len({id(connection) for connection, _, _ in server.seen}) == 1
    assert server.seen[0][2]["authorization"] == "Bearer secret"


@pytest.mark.parametrize("reset", [False, True])
def test_a_scan_goes_on_behind_the_last_whole_batch(server: Any, client: Client, reset: bool) -> None:
    start = len(scanned(250))
    server.answers = [cut(scanned(0), 3 * start, reset=reset)]

    def rest(handler: Handler) -> None:
        query = httpx.URL(handler.path).params
        assert (query["snapshot"], query["sequence"]) == ("2", "14")
        whole(scanned(int(query["start_row"])))(handler)

    server.answers.append(rest)
    assert keys(client) == list(range(ROWS))


def test_batches_kept_are_not_overwritten(server: Any, client: Client) -> None:
    server.answers = [whole(scanned(0))]
    batches = list(client.spaces.scan("core@7/item"))
    assert [batch.vectors[0, 0] for batch in batches if batch.vectors is not None] == list(range(0, ROWS, 50))


def test_who_has_enough_of_a_scan_leaves_no_connection_half_read(server: Any, client: Client) -> None:
    server.answers = [whole(scanned(0))]
    batches = client.spaces.scan("core@7/item")
    next(batches)
    batches.close()  # type: ignore[attr-defined]  # a generator
    assert keys(client) == list(range(ROWS))
    assert server.seen[0][0] is not server.seen[1][0]


def test_a_scan_that_is_refused(server: Any, client: Client) -> None:
    server.answers = [whole(PROBLEM, 409, content_type="application/problem+json")]
    with pytest.raises(SpaceNotReady, match="embed it first"):
        list(client.spaces.scan("core@7/item"))


def wanted(server: Any, folder: Path, body: bytes = BODY) -> Wanted:
    request = Request("GET", f"{server.url}/signed?signature=1", idempotent=True, authenticated=False)
    return Wanted(request, folder / "vectors", len(body), hashlib.sha256(body).hexdigest())


def test_a_file(server: Any, client: Client, tmp_path: Path) -> None:
    server.answers = [whole(BODY)]
    told: list[tuple[str, int, int]] = []
    client.runner.run(fetch([wanted(server, tmp_path)], lambda *progress: told.append(progress)))
    assert (tmp_path / "vectors").read_bytes() == BODY
    assert [done for _, done, _ in told] == [1 << 20, 2 << 20, 3 << 20, 4 << 20, len(BODY)]
    assert "authorization" not in server.seen[0][2], "the token is for the platform alone"


@pytest.mark.parametrize("reset", [False, True])
def test_a_broken_file_goes_on_where_it_broke(
    server: Any, client: Client, tmp_path: Path, reset: bool
) -> None:
    server.answers = [cut(BODY, 1_500_000, reset=reset), cut(BODY, 700_000), cut(BODY, len(BODY))]
    client.runner.run(fetch([wanted(server, tmp_path)]))
    assert (tmp_path / "vectors").read_bytes() == BODY
    starts = [headers.get("range") for _, _, headers in server.seen]
    assert starts[0] is None
    if not reset:  # a reset may overtake bytes that were sent before it
        assert starts[1:] == ["bytes=1500000-", "bytes=2200000-"]


def test_a_file_from_a_server_without_ranges_begins_anew(server: Any, client: Client, tmp_path: Path) -> None:
    server.answers = [cut(BODY, 1_500_000), whole(BODY)]
    client.runner.run(fetch([wanted(server, tmp_path)]))
    assert (tmp_path / "vectors").read_bytes() == BODY


def test_a_flipped_byte_of_a_file(server: Any, client: Client, tmp_path: Path) -> None:
    server.answers = [whole(BODY[:-1] + b"?")]
    with pytest.raises(DigestMismatch):
        client.runner.run(fetch([wanted(server, tmp_path)]))
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_gone(server: Any, client: Client, tmp_path: Path) -> None:
    server.answers = [whole(b"<Error/>", 404)]
    with pytest.raises(NotFound):
        client.runner.run(fetch([wanted(server, tmp_path)]))


def test_nobody_there(server: Any, client: Client) -> None:
    server.server_close()
    with pytest.raises(Unavailable, match="bedplate up"):
        list(client.spaces.scan("core@7/item"))


def test_through_a_proxy_everything_goes_to_the_proxy(
    server: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("HTTP_PROXY", "all_proxy", "ALL_PROXY", "no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", server.url)
    server.answers = [whole(BODY)]
    url = "http://store.test/vectors"
    file = Wanted(Request("GET", url), tmp_path / "vectors", len(BODY), hashlib.sha256(BODY).hexdigest())
    with Client("http://platform.test", "secret", sleep=lambda _: None, environment={}) as client:
        client.runner.run(fetch([file]))
        server.answers = [whole(scanned(0))]
        assert keys(client) == list(range(ROWS))
    assert [path.partition("?")[0] for _, path, _ in server.seen] == [
        url,
        "http://platform.test/v1/spaces/core@production/item/scan",
    ]
